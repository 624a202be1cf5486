"""Every select in one place."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.orm import Session

from api.db.clock import database_now
from api.db.models import (
    DRILL,
    Announcement,
    Artifact,
    Attempt,
    IdempotencyKey,
    Job,
    JobEvent,
    JobTag,
    Study,
    StudyClip,
    StudyPair,
    StudyVoter,
    Upload,
    Worker,
)
from api.db.session import ALL_TENANTS

LIVE = ("running", "cancelling")


def upload(session: Session, upload_id: str) -> Upload | None:
    return session.get(Upload, upload_id)


def uploads_to_check(session: Session) -> Sequence[str]:
    """Uploads whose check was not finished."""
    return session.scalars(select(Upload.id).where(Upload.state == "checking", Upload.deleted_at.is_(None))).all()


def expired_uploads(session: Session) -> Sequence[Upload]:
    """Uploads past their time that no job may need any more (a job that succeeded keeps its own copy), and no study."""
    needed = select(Job.upload_id).where(Job.state != "succeeded", Job.deleted_at.is_(None), Job.upload_id.is_not(None))
    shown = select(StudyClip.upload_id).join(Study).where(Study.closed_at.is_(None), StudyClip.upload_id.is_not(None))
    old = select(Upload).where(Upload.expires_at < database_now(session), Upload.deleted_at.is_(None))
    return session.scalars(old.where(Upload.id.not_in(needed), Upload.id.not_in(shown))).all()


def deleted_uploads(session: Session, upload_ids: Sequence[str]) -> dict[str, bool]:
    """Whether each, of whatever tenant, was deleted; unknown ones are not in it."""
    wanted = select(Upload.id, Upload.deleted_at.is_not(None)).where(Upload.id.in_(upload_ids))
    wanted = wanted.execution_options(**ALL_TENANTS)
    return {upload_id: deleted for upload_id, deleted in session.execute(wanted)}  # noqa: C416 (rows are no tuples to mypy)


def unfinished_jobs_of_upload(session: Session, upload_id: str) -> int:
    """Jobs that wait or run and read the upload."""
    live = ("queued", *LIVE)
    return session.scalar(select(func.count()).where(Job.upload_id == upload_id, Job.state.in_(live))) or 0


def job(session: Session, job_id: str) -> Job | None:
    return session.get(Job, job_id)


def job_version(session: Session, job_id: str) -> tuple[int, str] | None:
    """Version and state: what a long poll watches."""
    row = session.execute(select(Job.version, Job.state).where(Job.id == job_id)).one_or_none()
    return (row.version, row.state) if row else None


def is_cancelling(session: Session, job_id: str, attempt: int) -> bool:
    """Whether this attempt of the job should stop."""
    statement = select(Job.id).where(Job.id == job_id, Job.attempt == attempt, Job.state == "cancelling")
    return session.scalar(statement) is not None


def jobs(
    session: Session, state: str | None, tag: str | None, before: tuple[datetime, str] | None, limit: int
) -> Sequence[Job]:
    """Jobs that are not deleted, newest first."""
    statement = select(Job).where(Job.deleted_at.is_(None), Job.delete_requested_at.is_(None))
    if state is not None:
        statement = statement.where(Job.state == state)
    if tag is not None:
        statement = statement.where(Job.id.in_(select(JobTag.job_id).where(JobTag.tag == tag)))
    if before is not None:
        statement = statement.where(tuple_(Job.created_at, Job.id) < tuple_(*before))
    return session.scalars(statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)).all()


def tags(session: Session, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """The tags of each job."""
    found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for row in session.scalars(select(JobTag).where(JobTag.job_id.in_(job_ids)).order_by(JobTag.tag)):
        found[row.job_id].append(row.tag)
    return found


def queue_position(session: Session, job: Job) -> int | None:
    """1 for the job that starts next; None if it does not wait."""
    if job.state != "queued":
        return None
    earlier = tuple_(Job.queued_at, Job.id) < tuple_(job.queued_at, job.id)
    ahead = select(func.count()).where(Job.state == "queued", earlier).execution_options(**ALL_TENANTS)
    return 1 + (session.scalar(ahead) or 0)


def queued_count(session: Session) -> int:
    """Waiting jobs of everybody."""
    return session.scalar(select(func.count()).where(Job.state == "queued").execution_options(**ALL_TENANTS)) or 0


def queued_jobs(session: Session, limit: int = 100) -> Sequence[str]:
    """Waiting jobs that may start now, the oldest first. Those of drills are for sessions of their tenants only."""
    waiting = select(Job.id).where(
        Job.state == "queued",
        Job.delete_requested_at.is_(None),
        or_(Job.run_after.is_(None), Job.run_after <= database_now(session)),
    )
    if "tenant" not in session.info:
        waiting = waiting.where(~Job.tenant.startswith(DRILL, autoescape=True))
    return session.scalars(waiting.order_by(Job.queued_at, Job.id).limit(limit)).all()


def live_children(session: Session, job_id: str) -> int:
    """Renders of a job that wait or run."""
    live = ("queued", *LIVE)
    return session.scalar(select(func.count()).where(Job.parent_id == job_id, Job.state.in_(live))) or 0


def stale_jobs(session: Session) -> Sequence[Job]:
    """Running jobs whose lease has expired."""
    expired = Job.lease_expires_at < database_now(session)
    return session.scalars(select(Job).where(Job.state.in_(LIVE), expired)).all()


def attempts_ended(session: Session, job_id: str, outcome: str, since: int) -> int:
    """How many attempts of a job, from number `since` on, ended so."""
    ended = (Attempt.job_id == job_id, Attempt.outcome == outcome, Attempt.number >= since)
    return session.scalar(select(func.count()).where(*ended)) or 0


def attempt(session: Session, job_id: str, number: int) -> Attempt | None:
    return session.get(Attempt, (job_id, number))


def attempts(session: Session, job_id: str) -> Sequence[Attempt]:
    return session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)).all()


def announcements(session: Session, limit: int = 100) -> Sequence[Announcement]:
    """Messages that were not sent yet, the oldest first."""
    return session.scalars(select(Announcement).order_by(Announcement.created_at).limit(limit)).all()


def overdue_jobs(session: Session) -> Sequence[str]:
    """Waiting jobs past their start deadline."""
    return session.scalars(
        select(Job.id).where(Job.state == "queued", Job.start_deadline < database_now(session))
    ).all()


def jobs_to_delete(session: Session) -> Sequence[str]:
    """Jobs whose deletion was asked for and that no longer go."""
    ended = Job.state.not_in(("queued", *LIVE))
    wanted = select(Job.id).where(Job.delete_requested_at.is_not(None), Job.deleted_at.is_(None), ended)
    return session.scalars(wanted).all()


def lately_deleted_jobs(session: Session, hours: float) -> Sequence[str]:
    """Jobs of which only the tombstone is left, since some hours at most."""
    return session.scalars(select(Job.id).where(Job.deleted_at > database_now(session) - timedelta(hours=hours))).all()


def jobs_past_retention(session: Session, days: float, limit: int = 100) -> Sequence[str]:
    """Jobs that ended so many days ago, and whose deletion nobody has asked for."""
    wanted = select(Job.id).where(*_past_retention(session, days))
    return session.scalars(wanted.order_by(Job.finished_at).limit(limit)).all()


def is_past_retention(session: Session, job_id: str, days: float) -> bool:
    return session.scalar(select(Job.id).where(Job.id == job_id, *_past_retention(session, days))) is not None


def _past_retention(session: Session, days: float) -> tuple[ColumnElement[bool], ...]:
    old = Job.finished_at < database_now(session) - timedelta(days=days)
    return (Job.state.not_in(("queued", *LIVE)), old, Job.delete_requested_at.is_(None))


def events(session: Session, job_id: str, after: int, limit: int = 500) -> Sequence[JobEvent]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.number > after)
    return session.scalars(statement.order_by(JobEvent.number).limit(limit)).all()


def artifacts(session: Session, job_id: str) -> Sequence[Artifact]:
    return session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path)).all()


def artifact(session: Session, job_id: str, path: str) -> Artifact | None:
    return session.get(Artifact, (job_id, path))


def idempotency_key(session: Session, key: str, since: datetime) -> IdempotencyKey | None:
    return session.scalar(select(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.created_at >= since))


def workers(session: Session, seen_within_seconds: float) -> Sequence[Worker]:
    """Workers that showed themselves lately."""
    limit = database_now(session) - timedelta(seconds=seen_within_seconds)
    return session.scalars(select(Worker).where(Worker.seen_at >= limit).order_by(Worker.id)).all()


def all_workers(session: Session) -> Sequence[Worker]:
    """Every worker that has not said goodbye, also those that are silent."""
    return session.scalars(select(Worker).order_by(Worker.started_at, Worker.id)).all()


def drain(session: Session, worker_id: str) -> str | None:
    """Whether this worker was told to drain, and how."""
    return session.scalar(select(Worker.drain).where(Worker.id == worker_id))


def jobs_of_workers(session: Session) -> dict[str, str]:
    """The job that each busy worker runs."""
    running = session.execute(select(Job.owner, Job.id).where(Job.state.in_(LIVE), Job.owner.is_not(None)))
    return {row.owner: row.id for row in running}


def study(session: Session, study_id: str) -> Study | None:
    return session.get(Study, study_id)


def studies(session: Session, before: tuple[datetime, str] | None, limit: int) -> Sequence[Study]:
    """Studies, newest first."""
    statement = select(Study)
    if before is not None:
        statement = statement.where(tuple_(Study.created_at, Study.id) < tuple_(*before))
    return session.scalars(statement.order_by(Study.created_at.desc(), Study.id.desc()).limit(limit)).all()


def open_study(session: Session, shows: ColumnElement[bool]) -> str | None:
    """A study that still takes votes and has a clip of which `shows` is true."""
    return session.scalar(select(Study.id).join(StudyClip).where(shows, Study.closed_at.is_(None)).limit(1))


def study_clips(session: Session, study_id: str) -> Sequence[StudyClip]:
    statement = select(StudyClip).where(StudyClip.study_id == study_id)
    return session.scalars(statement.order_by(StudyClip.scene, StudyClip.method)).all()


def times_shown(session: Session, study_id: str) -> dict[tuple[str, str], int]:
    """How many voters were given each pair of clips."""
    pair = (StudyPair.first_id, StudyPair.second_id)
    given = select(*pair, func.count()).join(StudyVoter).where(StudyVoter.study_id == study_id)
    found = session.execute(given.where(StudyPair.repeated.is_(False)).group_by(*pair))
    return {(row[0], row[1]): row[2] for row in found}


def study_voter(session: Session, study_id: str, voter_id: str) -> StudyVoter | None:
    return session.scalar(select(StudyVoter).where(StudyVoter.id == voter_id, StudyVoter.study_id == study_id))


def pairs_of_voter(session: Session, voter_id: str) -> Sequence[StudyPair]:
    """In the order in which they are shown."""
    return session.scalars(select(StudyPair).where(StudyPair.voter_id == voter_id).order_by(StudyPair.number)).all()


def study_pair(session: Session, study_id: str, pair_id: str) -> StudyPair | None:
    pairs = select(StudyPair).join(StudyVoter).where(StudyPair.id == pair_id, StudyVoter.study_id == study_id)
    return session.scalar(pairs)


def votes(session: Session, study_id: str) -> Sequence[tuple[int, StudyPair]]:
    """Every vote with the number of its voter, voter by voter, in the order in which they were given."""
    cast = select(StudyVoter.number, StudyPair).join(StudyVoter, StudyPair.voter_id == StudyVoter.id)
    cast = cast.where(StudyVoter.study_id == study_id, StudyPair.choice.is_not(None))
    return [(row[0], row[1]) for row in session.execute(cast.order_by(StudyVoter.number, StudyPair.number))]
