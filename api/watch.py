"""Whether jobs have changed: one look at the database for all who wait in this process, however many there are."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from api.db.models import Job
from api.db.session import Sessions

LOOK_SECONDS = 0.25


class Watch:
    """Versions of the jobs that somebody waits for, as of the last look: at most `LOOK_SECONDS` and a query ago.

    Whoever asks when the last look is too old looks for all; the others go by it meanwhile. It tells nothing but that a
    job has changed, to callers that have found it among their tenant's rows before.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: Counter[str] = Counter()
        self._versions: dict[str, int] = {}
        self._looked = 0.0
        self._looking = threading.Lock()  # not held while waiting: event loops of several threads may share this

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """Watch a job for as long as the block lasts."""
        self._waiting[job_id] += 1
        try:
            yield
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def is_beyond(self, job_id: str, version: int) -> bool:
        """Whether the job is known to have a higher version. Raises SQLAlchemyError."""
        if monotonic() - self._looked >= LOOK_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._versions = await run_in_threadpool(self._look)
                self._looked = monotonic()
            finally:
                self._looking.release()
        return self._versions.get(job_id, 0) > version

    def _look(self) -> dict[str, int]:
        with self._sessions() as session:
            wanted = select(Job.id, Job.version).where(Job.id.in_(list(self._waiting)))
            return {job_id: version for job_id, version in session.execute(wanted)}  # noqa: C416 (rows are no tuples)
