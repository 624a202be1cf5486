"""Whether jobs have changed, and how: one look at the database for all who wait in this process, however many."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from sqlalchemy import and_, or_, select
from starlette.concurrency import run_in_threadpool

from api.db.models import Job, JobEvent
from api.db.session import Sessions

LOOK_SECONDS = 0.25
MOST_EVENTS = 200  # of a job that are kept; who has heard less reads them itself


@dataclass(frozen=True)
class Seen:
    """A job as of a look, with its newest events, of which none before its version is missing."""

    version: int
    state: str
    events: Sequence[JobEvent] = ()

    def after(self, number: int) -> Sequence[JobEvent] | None:
        """The events after `number`; None if not all of them are here."""
        missing = self.version - number
        return self.events[-missing:] if 0 < missing <= len(self.events) else None


class Watch:
    """Jobs that somebody waits for, as of the last look: at most `LOOK_SECONDS` and a query ago.

    Whoever asks when the last look is too old looks for all; the others go by it meanwhile. Ask only for jobs that were
    found among the caller's tenant's rows before.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: Counter[str] = Counter()
        self._listening: Counter[str] = Counter()
        self._seen: dict[str, Seen] = {}
        self._looked = 0.0
        self._looking = threading.Lock()  # not held while waiting: event loops of several threads may share this

    @contextmanager
    def of(self, job_id: str, events: bool = False) -> Iterator[None]:
        """Watch a job, and what happens to it (`events`), for as long as the block lasts."""
        counters = [self._waiting, *([self._listening] if events else [])]
        for counter in counters:
            counter[job_id] += 1
        try:
            yield
        finally:
            for counter in counters:
                counter[job_id] -= 1
                if not counter[job_id]:
                    del counter[job_id]

    async def beyond(self, job_id: str, version: int) -> Seen | None:
        """The job, if it is known to have a higher version. Raises SQLAlchemyError."""
        if monotonic() - self._looked >= LOOK_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._seen = await run_in_threadpool(self._look)
                self._looked = monotonic()
            finally:
                self._looking.release()
        seen = self._seen.get(job_id)
        return seen if seen and seen.version > version else None

    def _look(self) -> dict[str, Seen]:
        before = self._seen
        with self._sessions() as session:
            wanted = select(Job.id, Job.version, Job.state).where(Job.id.in_(list(self._waiting)))
            found = {row.id: Seen(row.version, row.state) for row in session.execute(wanted)}
            changed = {
                name: before[name].version
                for name in list(self._listening)
                if name in before and name in found and found[name].version > before[name].version
            }
            new = defaultdict(list)
            ranges = [and_(JobEvent.job_id == name, JobEvent.number > number) for name, number in changed.items()]
            if ranges:
                for row in session.scalars(select(JobEvent).where(or_(*ranges)).order_by(JobEvent.number)):
                    new[row.job_id].append(row)
        return {name: self._with_events(name, seen, before.get(name), new[name]) for name, seen in found.items()}

    def _with_events(self, name: str, seen: Seen, before: Seen | None, new: list[JobEvent]) -> Seen:
        """What was kept and what is new of them, up to the version that was seen."""
        if before is None or name not in self._listening:
            return seen
        if seen.version == before.version:
            return before
        new = [event for event in new if event.number <= seen.version]
        if [event.number for event in new] != list(range(before.version + 1, seen.version + 1)):
            return seen
        return Seen(seen.version, seen.state, [*before.events, *new][-MOST_EVENTS:])
