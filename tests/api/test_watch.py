"""What all who wait for a job are told, from one look at the database."""

import asyncio
import threading
from collections.abc import Callable

from sqlalchemy import event, text

from api.db.models import JobEvent
from api.settings import Settings
from api.watch import MOST_EVENTS, Seen, Watch
from tests.bench.open_loop import Listener, listen
from tests.harness import harness, served, steer

LISTENERS = 30


def test_only_what_is_whole_is_shared() -> None:
    seen = Seen(9, "running", [JobEvent(number=number) for number in (7, 8, 9)])
    assert [row.number for row in seen.after(7) or ()] == [8, 9]
    assert [row.number for row in seen.after(6) or ()] == [7, 8, 9]
    assert [seen.after(number) for number in (5, 0, 9, 10)] == [None] * 4


def test_many_listeners_read_once(make_settings: Callable[..., Settings]) -> None:
    """Each reads what has been when it comes; what then happens is read by one for all."""
    reads: list[str] = []
    with harness(make_settings(stream_seconds=30)) as service, served(service) as port:
        job = service.submit(steer(steps=30, sleep=0.1))

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("SELECT") and "FROM job_events" in statement:
                reads.append(statement)

        engine = service.sessions._engine
        event.listen(engine, "before_cursor_execute", note)
        listeners = [Listener([]) for _ in range(LISTENERS)]

        async def everybody() -> None:
            streams = [asyncio.create_task(listen(port, job["id"], listener)) for listener in listeners]
            while not all(listener.ids for listener in listeners):
                await asyncio.sleep(0.05)
            threading.Thread(target=service.runner.run, args=(job["id"],)).start()
            await asyncio.gather(*streams)

        asyncio.run(everybody())
        event.remove(engine, "before_cursor_execute", note)
        last = service.job(job["id"])
        with service.sessions() as session:
            version = session.scalar(text("SELECT version FROM jobs"))
    assert last["state"] == "succeeded"
    for listener in listeners:
        assert [number for number, _ in listener.ids] == list(range(1, version + 1))
    # when it comes, at most once more before the first look for all, and one for each look: not one each for each
    assert LISTENERS <= len(reads) < 3 * LISTENERS


def test_who_has_fallen_behind_reads_alone(make_settings: Callable[..., Settings]) -> None:
    """More events between two looks than are kept, or a hole: nothing is shared, so that nothing is missed."""
    with harness(make_settings()) as service:
        job = service.submit()["id"]
        watch = Watch(service.sessions)

        def happen(first: int, last: int) -> None:
            with service.sessions.begin() as session:
                for number in range(first, last + 1):
                    row = session.get_one(JobEvent, (job, 1))
                    copy = {c.name: getattr(row, c.name) for c in JobEvent.__table__.columns} | {"number": number}
                    session.add(JobEvent(**copy))
                session.execute(text(f"UPDATE jobs SET version = {last}"))

        with watch.of(job, events=True):
            watch._seen = watch._look()
            assert watch._seen[job].after(0) is None  # before it was watched
            happen(2, 3)
            watch._seen = watch._look()
            assert [row.number for row in watch._seen[job].after(1) or ()] == [2, 3]
            happen(4, 3 + MOST_EVENTS + 5)
            watch._seen = watch._look()
            assert watch._seen[job].after(3) is None
            assert len(watch._seen[job].after(8) or ()) == MOST_EVENTS
            version = watch._seen[job].version
            happen(version + 2, version + 2)  # a hole, which the service does not make
            watch._seen = watch._look()
            assert watch._seen[job].after(version) is None
        assert watch._look() == {}
