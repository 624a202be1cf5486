"""The state machine on both databases, also under contention."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.exc import IntegrityError, InternalError
from sqlalchemy.orm import Session

from api.db import queries
from api.db import session as session_module
from api.db.models import Attempt, Base, Job, now
from api.db.session import Sessions, make_engine, make_sessions
from api.errors import ServiceError
from api.jobs import faults, outbox, service, states
from api.jobs.faults import CRASHED
from api.jobs.stages import fresh_stages
from api.problems import as_service_error
from api.settings import Settings

SETTINGS = Settings(_env_file=None)  # type: ignore[call-arg]


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
    job.first_attempt, job.progress = 1, 0.0
    job.stages, job.warnings = fresh_stages("train"), []
    job.created_at = job.queued_at = time
    with sessions.begin() as session:
        service.submit(session, job, ["a"])
    return identity


def claimed(sessions: Sessions, identity: str = "job-1") -> Job:
    queued(sessions, identity)
    with sessions.begin() as session:
        job = service.claim(session, identity, "w", 60)
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
            return service.claim(session, identity, str(owner), 60)

    with ThreadPoolExecutor(12) as pool:
        won = [job for job in pool.map(claim, range(24)) if job]
    assert len(won) == 1
    assert read(sessions).owner == won[0].owner
    assert read(sessions).heartbeat_at is not None
    assert_history(sessions)


def test_an_older_attempt_is_fenced_out(sessions: Sessions) -> None:
    claimed(sessions)
    with sessions.begin() as session:
        assert service.give_back(session, "job-1", 1, CRASHED, "lost", SETTINGS) == "queued"
    with sessions.begin() as session:
        second = service.claim(session, "job-1", "other", 60)
    assert second is not None
    assert (second.attempt, second.run_after) == (2, None)
    with sessions.begin() as session:
        assert service.heartbeat(session, "job-1", 1, 60) is None
        assert not service.record(session, "job-1", 1, [("progress", {})], progress=0.9)
        assert service.finish(session, "job-1", 1, "succeeded", None) is None
        assert service.give_back(session, "job-1", 1, CRASHED, "late", SETTINGS) is None
        assert service.heartbeat(session, "job-1", 2, 60) == "running"
    assert (read(sessions).state, read(sessions).progress) == ("running", 0.0)
    assert_history(sessions)


def test_a_worker_whose_claim_was_forgotten_is_fenced_out(sessions: Sessions) -> None:
    """After a fail-over that lost the first claim, the next one has the same number."""
    claimed(sessions)
    with sessions.begin() as session:
        assert service.heartbeat(session, "job-1", 1, 60, worker="forgotten") is None
        assert not service.record(session, "job-1", 1, [("progress", {})], worker="forgotten", progress=0.9)
        assert service.finish(session, "job-1", 1, "succeeded", None, worker="forgotten") is None
        assert service.give_back(session, "job-1", 1, CRASHED, "late", SETTINGS, worker="forgotten") is None
        assert service.heartbeat(session, "job-1", 1, 60, worker="w") == "running"
    assert (read(sessions).state, read(sessions).progress) == ("running", 0.0)
    assert_history(sessions)


def test_attempts_run_out_and_yielding_costs_none(sessions: Sessions) -> None:
    queued(sessions)
    outcomes = []
    for fault in (CRASHED, None, None, CRASHED, CRASHED):
        with sessions.begin() as session:
            job = service.claim(session, "job-1", "w", 60)
            assert job is not None
        with sessions.begin() as session:
            outcomes.append(service.give_back(session, "job-1", job.attempt, fault, "killed", SETTINGS))
    assert outcomes == ["queued", "queued", "queued", "queued", "failed"]
    job = read(sessions)
    assert (job.problem or {})["type"] == "attempts-exhausted"
    assert job.attempt == 5
    with sessions.begin() as session:
        again = service.retry(session, session.get_one(Job, "job-1"))
        assert (again.attempt, again.first_attempt, again.problem, again.finished_at) == (6, 6, None, None)
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


def expired(sessions: Sessions, identity: str = "job-1") -> None:
    """Let the lease of a running job run out."""
    with sessions.begin() as session:
        session.get_one(Job, identity).lease_expires_at = now() - timedelta(seconds=1)


def test_a_sign_of_life_saves_an_attempt_from_the_reaper(sessions: Sessions) -> None:
    claimed(sessions)
    expired(sessions)
    with sessions() as session:
        assert [job.id for job in queries.stale_jobs(session)] == ["job-1"]
    with sessions.begin() as session:
        service.heartbeat(session, "job-1", 1, 60)
    with sessions.begin() as session:
        assert service.reap(session, "job-1", 1, SETTINGS) is None
        assert queries.stale_jobs(session) == []
    assert read(sessions).state == "running"


def test_a_claim_counts_from_when_it_is_had(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was frozen between its look at the clock and its claim has a whole lease all the same."""
    late = iter([now() - timedelta(minutes=5)])
    clock = service.database_now
    monkeypatch.setattr(service, "database_now", lambda session: next(late, None) or clock(session))
    before = now()
    claimed(sessions)
    with sessions() as session:
        job, (attempt,) = read(sessions), queries.attempts(session, read(sessions).id)
    assert attempt.started_at >= before - timedelta(seconds=5)
    assert job.lease_expires_at is not None
    assert job.lease_expires_at > before


@pytest.mark.fault("F5")
def test_a_worker_frozen_in_a_transaction_keeps_no_lock(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is frozen within a transaction: its lock on the job ends, and the job can be taken from it."""
    monkeypatch.setattr(session_module, "IDLE_SECONDS", 1)
    engine = make_engine(make_url(postgres_url))
    Base.metadata.create_all(engine)
    sessions = make_sessions(engine)
    claimed(sessions)
    with sessions() as frozen:
        service.locked(frozen, "job-1")
        began = time.monotonic()
        with sessions.begin() as session:
            assert service.request_cancel(session, session.get_one(Job, "job-1")).state == "cancelling"
        assert 0.5 < time.monotonic() - began < 10
        with pytest.raises(InternalError, match="idle-in-transaction") as late:
            service.locked(frozen, "job-1")
        assert as_service_error(late.value).status == 503
    engine.dispose()


@pytest.mark.fault("F32")
def test_of_many_reapers_one_reaps(sessions: Sessions) -> None:
    """Many reapers at once: one of them takes the job from its worker."""
    claimed(sessions)
    expired(sessions)

    def reap(_: int) -> str | None:
        with sessions.begin() as session:
            return service.reap(session, "job-1", 1, SETTINGS)

    with ThreadPoolExecutor(8) as pool:
        assert [state for state in pool.map(reap, range(16)) if state] == ["queued"]
    job = read(sessions)
    assert (job.attempt, job.owner, job.lease_expires_at) == (2, None, None)
    assert len(job.warnings) == 1
    with sessions() as session:
        assert queries.attempt(session, "job-1", 1).outcome == "worker-lost"  # type: ignore[union-attr]
    assert_history(sessions)


@pytest.mark.parametrize("fault", faults.ALL.values(), ids=lambda fault: fault.type)
def test_each_fault_has_its_limit_and_its_pause(sessions: Sessions, fault: faults.Fault) -> None:
    settings = Settings(max_attempts=3, max_interruptions=4, retry_seconds=100)
    limit = {"job": 3, "size": 2, "machine": 4}[fault.blame]
    queued(sessions)
    for number in range(1, limit + 1):
        with sessions.begin() as session:
            assert service.claim(session, "job-1", "w", 60) is not None
        with sessions.begin() as session:
            state = service.give_back(session, "job-1", number, fault, "why", settings)
        assert state == ("failed" if number == limit else "queued")
        if state == "queued" and fault.pauses:
            wait = (read(sessions).run_after or now()) - now()
            expected = min(100 * 2 ** (number - 1), 300)
            assert expected - 5 < wait.total_seconds() <= expected
            with sessions.begin() as session:
                assert queries.queued_jobs(session) == []
                assert service.claim(session, "job-1", "w", 60) is None
                session.get_one(Job, "job-1").run_after = now() - timedelta(seconds=1)
        elif state == "queued":
            assert read(sessions).run_after is None
    problem = read(sessions).problem or {}
    assert (problem["type"], problem["title"], problem["retryable"]) == (fault.type, fault.title, fault.blame != "job")
    with sessions() as session:
        assert queries.attempts_ended(session, "job-1", fault.type, 1) == limit
    assert_history(sessions)


def test_the_database_refuses_a_second_live_attempt(sessions: Sessions) -> None:
    claimed(sessions)
    with pytest.raises(IntegrityError), sessions.begin() as session:
        session.add(Attempt(job_id="job-1", number=2, worker="other", started_at=now()))


class Bell:
    """A doorbell that can be out of order."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.rung: list[str] = []

    def announce(self, job_id: str) -> bool:
        if self.works:
            self.rung.append(job_id)
        return self.works

    def waiting(self) -> int:
        return 0


def test_the_outbox_keeps_what_could_not_be_sent(sessions: Sessions) -> None:
    queued(sessions, "job-1")
    queued(sessions, "job-2")
    assert outbox.deliver(sessions, Bell(works=False)) == 0
    bell = Bell()
    assert outbox.deliver(sessions, bell) == 2
    assert bell.rung == ["job-1", "job-2"]
    assert outbox.deliver(sessions, bell) == 0
    claimed_job = None
    with sessions.begin() as session:
        claimed_job = service.claim(session, "job-1", "w", 60)
    assert claimed_job is not None
    with sessions.begin() as session:
        service.give_back(session, "job-1", 1, None, "yield", SETTINGS)
    assert outbox.deliver(sessions, bell) == 1
    with sessions() as session, pytest.raises(RuntimeError):  # what is not committed is not announced
        queued_session(session)
    assert outbox.deliver(sessions, bell) == 0


def queued_session(session: Session) -> None:
    job = session.get_one(Job, "job-2")
    service.request_cancel(session, job)
    service.retry(session, job)
    raise RuntimeError


@pytest.mark.parametrize("state", sorted(states.MOVES))
def test_every_other_move_is_refused(sessions: Sessions, state: str) -> None:
    queued(sessions)
    with sessions.begin() as session:
        session.get_one(Job, "job-1").state = state
    actions = {
        "running": lambda s: service.claim(s, "job-1", "w", 60),
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
