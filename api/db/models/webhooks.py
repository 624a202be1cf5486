"""Webhooks: where a job's events are sent, with which secret, and each message with its tries."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from api.db.models.base import Base, one_of

DELIVERY_STATES = ("pending", "delivered", "failed", "gone")
DUE = text("state = 'pending'")


class Webhook(Base):
    """The receiver of a job's events. `gone_at`: it answered 410 and gets nothing more."""

    __tablename__ = "webhooks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    url: Mapped[str]
    events: Mapped[list[Any]]
    secret: Mapped[str | None]  # the job's own; none: its tenant's
    gone_at: Mapped[datetime | None]


class WebhookSecret(Base):
    """A tenant's signing secret; the one before signs too until `previous_until`."""

    __tablename__ = "webhook_secrets"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret: Mapped[str]
    previous: Mapped[str | None]
    previous_until: Mapped[datetime | None]


class Delivery(Base):
    """One message, written in the commit of the change that it tells of. `id` and `body` never change.

    `number` is that of the job's event, none for a test. A sender holds the row until `next_try_at`; `tries` fences out
    a sender that was too slow.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(one_of("state", DELIVERY_STATES), name="state"),
        Index("ix_deliveries_due", "next_try_at", postgresql_where=DUE, sqlite_where=DUE),
    )

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    type: Mapped[str] = mapped_column(String(40))
    attempt: Mapped[int]
    number: Mapped[int | None]
    body: Mapped[str]
    state: Mapped[str] = mapped_column(String(20), default="pending")
    tries: Mapped[int] = mapped_column(default=0)
    tries_before: Mapped[int] = mapped_column(default=0)  # it was last resent: the limit counts from there
    log: Mapped[list[Any]] = mapped_column(default=list)  # of each try: time, status or error, seconds
    created_at: Mapped[datetime]
    next_try_at: Mapped[datetime]
