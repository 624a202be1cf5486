"""The state machine on both databases, also under contention."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import IntegrityError

from api.db import queries
from api.db.models import Base, Job, now
from api.db.session import Sessions, make_engine, make_sessions
from api.errors import ServiceError
from api.jobs import service, states
from api.jobs.stages import fresh_stages


@pytest.fixture(params=["sqlite", "postgres"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    url = (
        URL.create("sqlite", database=str(tmp_path / "s.sqlite3"))
        if request.param == "sqlite"
        else make_url(request.getfixturevalue("postgres_url"))
    )
    engine = make_engine(url)
    Base.metadata.create_all(engine)
    yield make_sessions(engine)
    engine.dispose()


def queued(sessions: Sessions, identity: str = "job-1") -> str:
    time = now()
    job = Job(id=identity, kind="train", preset="smoke", settings={}, config={}, camera_paths=[], state="queued")
    job.version = job.attempt = 1
    job.crashes, job.progress = 0, 0.0
    job.stages, job.warnings = fresh_stages("train"), []
    job.created_at = job.queued_at = time
    with sessions.begin() as session:
        service.submit(session, job, ["a"])
    return identity


def claimed(sessions: Sessions, identity: str = "job-1") -> Job:
    queued(sessions, identity)
    with sessions.begin() as session:
        job = service.claim(session, identity, "w")
    assert job is not None
    return job


def read(sessions: Sessions, identity: str = "job-1") -> Job:
    with sessions() as session:
        return session.get_one(Job, identity)


def assert_history(sessions: Sessions, identity: str = "job-1") -> None:
    """Events are numbered 1..version and walk along legal moves only."""
    with sessions() as session:
        job = session.get_one(Job, identity)
        events = queries.events(session, identity, 0)
    assert [event.number for event in events] == list(range(1, job.version + 1))
    walk = [event.data["state"] for event in events]
    assert walk[-1] == job.state
    for before, after in pairwise(walk):
        assert before == after or after in states.MOVES[before], walk


def test_one_of_many_claims_wins(sessions: Sessions) -> None:
    identity = queued(sessions)

    def claim(owner: int) -> Job | None:
        with sessions.begin() as session:
            return service.claim(session, identity, str(owner))

    with ThreadPoolExecutor(12) as pool:
        won = [job for job in pool.map(claim, range(24)) if job]
    assert len(won) == 1
    assert read(sessions).owner == won[0].owner
    assert read(sessions).heartbeat_at is not None
    assert_history(sessions)


def test_an_older_attempt_is_fenced_out(sessions: Sessions) -> None:
    claimed(sessions)
    with sessions.begin() as session:
        assert service.give_back(session, "job-1", 1, "lost", 3) == "queued"
    with sessions.begin() as session:
        second = service.claim(session, "job-1", "other")
    assert second is not None
    assert (second.attempt, second.crashes) == (2, 1)
    with sessions.begin() as session:
        assert service.heartbeat(session, "job-1", 1) is None
        assert not service.record(session, "job-1", 1, [("progress", {})], progress=0.9)
        assert service.finish(session, "job-1", 1, "succeeded", None) is None
        assert service.give_back(session, "job-1", 1, "late", 3) is None
        assert service.heartbeat(session, "job-1", 2) == "running"
    assert (read(sessions).state, read(sessions).progress) == ("running", 0.0)
    assert_history(sessions)


def test_attempts_run_out_and_yielding_costs_none(sessions: Sessions) -> None:
    queued(sessions)
    outcomes = []
    for limit in (3, None, None, 3, 3):
        with sessions.begin() as session:
            job = service.claim(session, "job-1", "w")
            assert job is not None
        with sessions.begin() as session:
            outcomes.append(service.give_back(session, "job-1", job.attempt, "killed", limit))
    assert outcomes == ["queued", "queued", "queued", "queued", "failed"]
    job = read(sessions)
    assert (job.problem or {})["type"] == "attempts-exhausted"
    assert job.attempt == 5
    with sessions.begin() as session:
        again = service.retry(session, session.get_one(Job, "job-1"))
        assert (again.attempt, again.crashes, again.problem, again.finished_at) == (6, 0, None, None)
    assert_history(sessions)


def test_cancel_against_finish_has_one_end(sessions: Sessions) -> None:
    for number in range(6):
        identity = f"job-{number}"
        claimed(sessions, identity)

        def cancel(identity: str = identity) -> None:
            with sessions.begin() as session:
                service.request_cancel(session, session.get_one(Job, identity))

        def finish(identity: str = identity, state: str = ("succeeded", "failed")[number % 2]) -> str | None:
            with sessions.begin() as session:
                return service.finish(session, identity, 1, state, None)

        with ThreadPoolExecutor(2) as pool:
            cancelling, finishing = pool.submit(cancel), pool.submit(finish)
            ended = finishing.result()
            if error := cancelling.exception():
                assert isinstance(error, ServiceError)
        assert read(sessions, identity).state == ended in states.TERMINAL
        assert_history(sessions, identity)


def test_a_sign_of_life_saves_an_attempt_from_the_sweep(sessions: Sessions) -> None:
    job = claimed(sessions)
    with sessions.begin() as session:
        service.heartbeat(session, "job-1", 1)
    with sessions.begin() as session:
        assert service.give_back(session, "job-1", 1, "silent", 3, silent_since=job.heartbeat_at) is None
    assert read(sessions).state == "running"


@pytest.mark.parametrize("state", sorted(states.MOVES))
def test_every_other_move_is_refused(sessions: Sessions, state: str) -> None:
    queued(sessions)
    with sessions.begin() as session:
        session.get_one(Job, "job-1").state = state
    actions = {
        "running": lambda s: service.claim(s, "job-1", "w"),
        "succeeded": lambda s: service.finish(s, "job-1", 1, "succeeded", None),
        "failed": lambda s: service.finish(s, "job-1", 1, "failed", None),
    }
    for target, act in actions.items():
        legal = target in states.MOVES[state]
        with sessions() as session:
            ended = act(session)
            if state == "cancelling" and target == "failed":
                assert ended == "cancelled"
            else:
                assert bool(ended) == legal, (state, target)
            session.rollback()


def test_the_database_knows_the_states(sessions: Sessions) -> None:
    queued(sessions)
    with pytest.raises(IntegrityError), sessions.begin() as session:
        session.get_one(Job, "job-1").state = "lost"


def test_times_come_back_in_utc(sessions: Sessions) -> None:
    queued(sessions)
    created = read(sessions).created_at
    assert created.utcoffset() == timedelta(0)
    assert abs(now() - created) < timedelta(minutes=1)
    with pytest.raises(Exception, match="zone"), sessions.begin() as session:
        session.get_one(Job, "job-1").created_at = created.replace(tzinfo=None)
