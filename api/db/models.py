"""The tables. Portable types only: string states with a check, JSON, UTC times."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

UPLOAD_STATES = ("receiving", "checking", "ready", "rejected")
JOB_STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired")
CHOICES = ("left", "right", "tie")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite forgets the zone, so it is put back when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("times must carry their zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON(none_as_null=True), list[Any]: JSON, str: Text}  # noqa: RUF012


class Upload(Base):
    """A file that a user sent; its bytes lie in the storage under its id."""

    __tablename__ = "uploads"
    __table_args__ = (CheckConstraint(_one_of("state", UPLOAD_STATES), name="state"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    filename: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    report: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Job(Base):
    """One job. `version` rises with every change and numbers the events; `attempt` fences out older workers.

    While it runs, `owner` holds a lease until `lease_expires_at`, a time of the database's clock.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("state", JOB_STATES), name="state"),
        CheckConstraint(_one_of("kind", ("train", "render")), name="kind"),
        Index("ix_jobs_state_queued_at", "state", "queued_at"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    upload_id: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"), index=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    name: Mapped[str | None]
    preset: Mapped[str] = mapped_column(String(40))
    settings: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any]]
    camera_paths: Mapped[list[Any]]

    state: Mapped[str] = mapped_column(String(20))
    version: Mapped[int] = mapped_column(default=1)
    attempt: Mapped[int] = mapped_column(default=1)
    first_attempt: Mapped[int] = mapped_column(default=1)  # faults count from here: a user's retry starts anew
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    run_after: Mapped[datetime | None]  # the pause before the next attempt

    stage: Mapped[str | None] = mapped_column(String(20))
    stages: Mapped[list[Any]]
    progress: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    problem: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    metrics: Mapped[dict[str, Any] | None]

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    start_deadline: Mapped[datetime | None]
    run_deadline: Mapped[datetime | None]
    run_seconds: Mapped[float | None]
    delete_requested_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    receipt: Mapped[dict[str, Any] | None]


class Attempt(Base):
    """One attempt of a job, from its claim to its end; the database allows one that has not ended."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index(
            "uq_attempts_live",
            "job_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    worker: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(40))  # see api.jobs.faults
    detail: Mapped[str | None]


class Announcement(Base):
    """The outbox: a job that waits and whose message was not sent yet, written in the commit that queued it."""

    __tablename__ = "announcements"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int]
    created_at: Mapped[datetime]


class JobTag(Base):
    """One word that a job is found by."""

    __tablename__ = "job_tags"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class JobEvent(Base):
    """Something that happened to a job; `number` rises by one within a job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]


class Artifact(Base):
    """One file that a job made, relative to its run folder."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(500), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(100))
    stage: Mapped[str | None] = mapped_column(String(20))
    attempt: Mapped[int]
    created_at: Mapped[datetime]


class IdempotencyKey(Base):
    """What a key was first used for."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(index=True)


class Worker(Base):
    """A worker process, as it last showed itself."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[str] = mapped_column(String(40))
    devices: Mapped[list[Any]]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Study(Base):
    """A blind comparison of clips; `voters` counts those who came. It takes votes until it is closed."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str]
    question: Mapped[str]
    ties: Mapped[bool]
    repeats: Mapped[int]
    pairs_per_voter: Mapped[int]
    voters: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(index=True)
    closed_at: Mapped[datetime | None]


class StudyClip(Base):
    """What a method made of a scene: an artifact of a job, or an uploaded video."""

    __tablename__ = "study_clips"
    __table_args__ = (UniqueConstraint("study_id", "scene", "method"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"))
    scene: Mapped[str]
    method: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    path: Mapped[str | None]
    upload_id: Mapped[str | None] = mapped_column(ForeignKey("uploads.id"), index=True)


class StudyVoter(Base):
    """Somebody who votes. The id is the voter's secret; results name the number."""

    __tablename__ = "study_voters"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"))
    number: Mapped[int]
    created_at: Mapped[datetime]


class StudyPair(Base):
    """Two clips before one voter, who is told nothing but the id. `first_id` < `second_id`; a repeat is a row more."""

    __tablename__ = "study_pairs"
    __table_args__ = (
        CheckConstraint(_one_of("choice", CHOICES), name="choice"),
        UniqueConstraint("voter_id", "number"),
        UniqueConstraint("voter_id", "first_id", "second_id", "repeated"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    voter_id: Mapped[str] = mapped_column(ForeignKey("study_voters.id"))
    number: Mapped[int]
    first_id: Mapped[str] = mapped_column(ForeignKey("study_clips.id"), index=True)
    second_id: Mapped[str] = mapped_column(ForeignKey("study_clips.id"))
    swapped: Mapped[bool]
    repeated: Mapped[bool]
    shown_at: Mapped[datetime | None]
    choice: Mapped[str | None] = mapped_column(String(20))
    voted_at: Mapped[datetime | None]
