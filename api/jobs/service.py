"""The only writer of job states: conditional updates on the old state, each with its event in the same transaction.

A running attempt is fenced by its number, which rises before a job waits again: a worker whose attempt is over finds no
row to write to and stops. Leases are measured with the database's clock.
All functions take an open session and do not commit; what waits is in the outbox then (`api.jobs.outbox`).
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, or_, update
from sqlalchemy.orm import Session

from api.db import queries
from api.db.clock import database_now
from api.db.models import Announcement, Artifact, Attempt, Job, JobEvent, JobTag, Webhook, Worker, now
from api.errors import ServiceError
from api.jobs import states
from api.jobs.attempts import count_stages, end_attempt
from api.jobs.faults import WORKER_LOST, YIELDED, Fault
from api.jobs.stages import StageRow, close_running, overall_progress, reset_unfinished
from api.settings import Settings
from api.webhooks import outbox as webhooks

Event = tuple[str, dict[str, Any]]  # kind and data
Problem = dict[str, Any]


def submit(session: Session, job: Job, tags: list[str], webhook: Webhook | None = None) -> Job:
    """Put a new job into the queue."""
    session.add(job)
    session.flush()
    if webhook is not None:
        session.add(webhook)
    session.add_all(JobTag(job_id=job.id, tag=tag) for tag in tags)
    session.add(Announcement(job_id=job.id, attempt=job.attempt, created_at=now()))
    _write_events(session, job, [("state", {})])
    return job


def claim(session: Session, job_id: str, owner: str, lease_seconds: float, device: str = "cpu") -> Job | None:
    """Take a queued job for `owner`. None if somebody else has it, or if it may not start (any more, or yet)."""
    time = database_now(session)
    if _move(session, job_id, states.EXPIRED, Job.start_deadline < time, finished_at=time, problem=_start_missed()):
        return None
    job = _move(
        session,
        job_id,
        states.RUNNING,
        Job.delete_requested_at.is_(None),
        ~exists().where(Worker.id == owner, Worker.drain.is_not(None)),
        or_(Job.run_after.is_(None), Job.run_after <= time),
        owner=owner,
        started_at=func.coalesce(Job.started_at, time),
        heartbeat_at=time,
        lease_expires_at=time + timedelta(seconds=lease_seconds),
        run_after=None,
    )
    if job is None:
        return None
    time = database_now(session)  # the row is ours only now: who was frozen since the first look comes late
    job.heartbeat_at, job.lease_expires_at = time, time + timedelta(seconds=lease_seconds)
    session.add(Attempt(job_id=job.id, number=job.attempt, worker=owner, device=device, started_at=time))
    if job.run_seconds is not None and job.run_deadline is None:
        job.run_deadline = time + timedelta(seconds=job.run_seconds)
    return job


def record(
    session: Session, job_id: str, attempt: int, events: list[Event], worker: str | None = None, **values: Any
) -> bool:
    """Write a running attempt's progress and events. False if the attempt is over: its worker must stop."""
    if _change(session, job_id, _is_mine(attempt, worker), events, values) is None:
        return False
    count_stages(session, [data for _, data in events])
    return True


def heartbeat(
    session: Session, job_id: str, attempt: int, lease_seconds: float, worker: str | None = None
) -> str | None:
    """Renew the lease of an attempt; its state (running or cancelling), or None if the attempt is over."""
    time = database_now(session)
    lease = {"heartbeat_at": time, "lease_expires_at": time + timedelta(seconds=lease_seconds)}
    statement = update(Job).where(Job.id == job_id, *_is_mine(attempt, worker)).values(**lease)
    return session.scalar(statement.returning(Job.state).execution_options(synchronize_session=False))


def request_cancel(session: Session, job: Job) -> Job:
    """Stop a job: at once while it waits, else as soon as its worker has stopped the run. Repeats are harmless."""
    time = now()
    moved = _move(session, job.id, states.CANCELLED, Job.state == states.QUEUED, finished_at=time, eta_seconds=None)
    moved = moved or _move(session, job.id, states.CANCELLING, eta_seconds=None)
    session.refresh(job)
    if moved is None and job.state not in (states.CANCELLING, states.CANCELLED):
        raise ServiceError(
            409, "already-finished", "The job is already finished", f"job {job.id} is {job.state}: nothing to cancel"
        )
    return job


def finish(
    session: Session,
    job_id: str,
    attempt: int,
    state: str,
    problem: Problem | None,
    outcome: str | None = None,
    worker: str | None = None,
    **values: Any,
) -> str | None:
    """End an attempt in a terminal state; what was being cancelled and did not succeed ends cancelled.

    `outcome` is what the attempt's row says instead of the state.
    Returns the state in which it ended, None if the attempt was over already.
    """
    job = locked(session, job_id)
    if job.state == states.CANCELLING and state != states.SUCCEEDED:
        state, problem = states.CANCELLED, None
    if state == states.SUCCEEDED:
        stages = close_running(job.stages, "done")
        values |= {"progress": 1.0, "stage": None}
    else:
        stages = close_running(job.stages, "cancelled" if state == states.CANCELLED else "failed")
    values |= {"stages": stages, "problem": problem, "finished_at": now(), "eta_seconds": None}
    values |= {"owner": None, "lease_expires_at": None}
    if not _move(session, job_id, state, *_is_mine(attempt, worker), **values):
        return None
    end_attempt(session, job_id, attempt, outcome or state, (problem or {}).get("detail"))
    return state


def give_back(
    session: Session,
    job_id: str,
    attempt: int,
    fault: Fault | None,
    reason: str,
    settings: Settings,
    worker: str | None = None,
) -> str | None:
    """An attempt ended without a result: queue the next one, which goes on from the last checkpoint.

    The job fails when the fault's limit is reached; `fault` None: the worker only yielded. A job that was being
    cancelled ends cancelled. Returns the new state, None if the attempt was over already.
    """
    job = locked(session, job_id)
    if job.state == states.CANCELLING:
        return finish(session, job_id, attempt, states.CANCELLED, None, worker=worker)
    pause = 0.0
    if fault is not None:
        times = 1 + queries.attempts_ended(session, job_id, fault.type, job.first_attempt)
        if times >= fault.limit(settings):
            return finish(session, job_id, attempt, states.FAILED, _exhausted(fault, times, reason), fault.type, worker)
        pause = fault.pause(times, settings)
    values = _next_attempt(job) | {"warnings": [*job.warnings, f"attempt {attempt}: {reason}"]}
    values["run_after"] = database_now(session) + timedelta(seconds=pause) if pause else None
    if not _move(session, job_id, states.QUEUED, *_is_mine(attempt, worker), **values):
        return None
    end_attempt(session, job_id, attempt, fault.type if fault else YIELDED, reason)
    _announce(session, job_id, attempt + 1)
    return states.QUEUED


def reap(session: Session, job_id: str, attempt: int, settings: Settings) -> str | None:
    """Take an attempt whose lease has expired from its worker; None if the lease was renewed, or is over, meanwhile."""
    job = locked(session, job_id)
    if job.lease_expires_at is None or job.lease_expires_at >= database_now(session):
        return None
    reason = f"its worker ({job.owner}) gave no sign of life for {settings.lease_seconds:g} s"
    return give_back(session, job_id, attempt, WORKER_LOST, reason, settings)


def retry(session: Session, job: Job) -> Job:
    """Queue another attempt of a job that ended without success; it goes on from the last checkpoint."""
    values = _next_attempt(job) | {"first_attempt": job.attempt + 1, "run_after": None}
    values |= {"start_deadline": None, "run_deadline": None, "started_at": None}
    ended = (Job.state.in_(states.TERMINAL), Job.attempt == job.attempt, Job.delete_requested_at.is_(None))
    moved = _move(session, job.id, states.QUEUED, *ended, **values)
    if moved is None:
        raise ServiceError(409, "not-retryable", "The job cannot be retried", f"job {job.id} is {job.state}")
    _announce(session, moved.id, moved.attempt)
    return moved


def expire(session: Session, job_id: str) -> bool:
    """End a waiting job whose start deadline has passed."""
    time = database_now(session)
    missed = _move(
        session, job_id, states.EXPIRED, Job.start_deadline < time, finished_at=time, problem=_start_missed()
    )
    return missed is not None


def request_delete(session: Session, job: Job) -> Job:
    """Mark a job for deletion, stopping it first if it still goes. Its files go when nothing runs any more."""
    job = locked(session, job.id)  # nobody retries it behind our back
    if job.delete_requested_at is None:
        if job.state not in states.TERMINAL:
            request_cancel(session, job)
        job.delete_requested_at = now()
        job.version += 1
        _write_events(session, job, [("deleting", {})])
    return job


def mark_deleted(session: Session, job: Job) -> None:
    """Leave a tombstone, with the receipt of what was removed."""
    job.deleted_at = now()
    job.config = job.settings = {}
    job.camera_paths = []
    job.metrics = None
    job.version += 1
    session.execute(delete(Artifact).where(Artifact.job_id == job.id))
    webhooks.forget(session, job.id)
    _write_events(session, job, [("deleted", {})])


def _next_attempt(job: Job) -> dict[str, Any]:
    stages: list[StageRow] = reset_unfinished(job.stages)
    return {
        "attempt": job.attempt + 1,
        "queued_at": now(),
        "finished_at": None,
        "owner": None,
        "lease_expires_at": None,
        "stage": None,
        "stages": stages,
        "progress": overall_progress(stages),
        "eta_seconds": None,
        "problem": None,
    }


def _announce(session: Session, job_id: str, attempt: int) -> None:
    """Put the message that this job waits into the outbox."""
    session.merge(Announcement(job_id=job_id, attempt=attempt, created_at=now()))


def _exhausted(fault: Fault, times: int, reason: str) -> Problem:
    return {
        "type": fault.type,
        "title": fault.title,
        "detail": f"{times} attempts ended so; the last one: {reason}",
        "remedy": fault.remedy,
        "retryable": fault.blame != "job",
    }


def locked(session: Session, job_id: str) -> Job:
    """The row as it is now, and as it stays until this transaction ends."""
    session.execute(update(Job).where(Job.id == job_id).values(version=Job.version))  # SQLite has no FOR UPDATE
    return session.get_one(Job, job_id, populate_existing=True)


def _is_mine(attempt: int, worker: str | None) -> tuple[ColumnElement[bool], ...]:
    """`worker` None: whoever holds it. A fail-over of the database may forget a claim and number the next one alike."""
    mine = (Job.attempt == attempt, Job.state.in_(states.LIVE))
    return mine if worker is None else (*mine, Job.owner == worker)


def _move(session: Session, job_id: str, to: str, *where: ColumnElement[bool], **values: Any) -> Job | None:
    """Move a job to state `to` if the table of moves and `where` allow it."""
    conditions = (Job.state.in_(states.sources(to)), *where)
    return _change(session, job_id, conditions, [("state", {})], {"state": to, **values})


def _change(
    session: Session, job_id: str, where: tuple[ColumnElement[bool], ...], events: list[Event], values: dict[str, Any]
) -> Job | None:
    statement = update(Job).where(Job.id == job_id, *where).values(version=Job.version + len(events), **values)
    options = {"synchronize_session": False, "populate_existing": True}
    job = session.scalars(statement.returning(Job), execution_options=options).one_or_none()
    if job is not None:
        _write_events(session, job, events)
    return job


def _write_events(session: Session, job: Job, events: list[Event]) -> None:
    """The events end at the job's version: their numbers rise without a gap."""
    time = now()
    for number, (kind, data) in enumerate(events, start=job.version - len(events) + 1):
        summary = {"state": job.state, "stage": job.stage, "progress": job.progress, "eta_seconds": job.eta_seconds}
        extra = {"problem": job.problem, "metrics": job.metrics} if kind == "state" else {}
        session.add(
            JobEvent(
                job_id=job.id, number=number, time=time, kind=kind, attempt=job.attempt, data=summary | extra | data
            )
        )
        if kind == "state":
            webhooks.note(session, job, number)


def _start_missed() -> Problem:
    return {
        "type": "start-deadline",
        "title": "The job did not start in time",
        "detail": "no worker was free before start_deadline",
        "remedy": "submit it again with a later start_deadline, or add a worker",
        "retryable": True,
    }
