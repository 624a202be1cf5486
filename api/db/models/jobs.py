"""Jobs, their attempts, events and files, and the workers that run them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import DEFAULT_TENANT, Base, Owned, one_of

JOB_STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired")

KEPT = text("deleted_at IS NULL")
DELETED = text("deleted_at IS NOT NULL")


class Job(Owned, Base):
    """One job. `version` rises with every change and numbers the events; `attempt` fences out older workers.

    While it runs, `owner` holds a lease until `lease_expires_at`, a time of the database's clock.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JOB_STATES), name="state"),
        CheckConstraint(one_of("kind", ("train", "render")), name="kind"),
        Index("ix_jobs_state_queued_at", "state", "queued_at"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_kept", "state", postgresql_where=KEPT, sqlite_where=KEPT),  # counting by state
        Index("ix_jobs_deleted_at", "deleted_at", postgresql_where=DELETED, sqlite_where=DELETED),
        Index("ix_jobs_tenant_created_at_id", "tenant", "created_at", "id"),
        Index("ix_jobs_tenant_state", "tenant", "state"),
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
    device: Mapped[str | None] = mapped_column(String(20))
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
    object_key: Mapped[str | None] = mapped_column(String(200))  # in the bucket; none: a file of the run folder


class IdempotencyKey(Owned, Base):
    """What a key of a tenant was first used for."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[str] = mapped_column(
        String(64), primary_key=True, default=DEFAULT_TENANT, server_default=DEFAULT_TENANT
    )
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
    drain: Mapped[str | None] = mapped_column(String(10))  # takes nothing new: finish its job, or yield it
