"""How many of everything there are now, and since when: by indexes, never by reading the rows of all jobs."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from api.db.clock import database_now
from api.db.models import Delivery, Job, Upload, Worker
from api.db.tallies import totals

LIVE = ("running", "cancelling")

JOBS = select(Job.state, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.state)
UPLOADS = (
    select(Upload.state, func.count(), func.sum(Upload.size)).where(Upload.deleted_at.is_(None)).group_by(Upload.state)
)
OLDEST_QUEUED = select(func.min(Job.queued_at)).where(Job.state == "queued")
LEASES = select(func.min(Job.heartbeat_at), func.min(Job.lease_expires_at)).where(Job.state.in_(LIVE))
MESSAGES = select(func.count(), func.min(Delivery.created_at)).where(Delivery.state == "pending")
STATEMENTS: tuple[Select, ...] = (JOBS, UPLOADS, OLDEST_QUEUED, LEASES, MESSAGES)


@dataclass(frozen=True)
class Census:
    """Ages in seconds of the database's clock; 0 where there is nothing that could have one."""

    jobs: dict[str, int]
    queue_oldest: float
    heartbeat_oldest: float
    lease_overdue: float
    uploads: dict[str, tuple[int, int]]  # number and bytes, by state
    messages: int
    message_oldest: float
    workers: dict[str, int]  # by device
    tallies: dict[str, dict[str, float]]


def take(session: Session, seen_within_seconds: float) -> Census:
    """The census of this moment; a worker counts if it was seen lately."""
    time = database_now(session)

    def age(since: datetime | None) -> float:
        return max((time - since).total_seconds(), 0.0) if since else 0.0

    heartbeat, lease = session.execute(LEASES).one()
    messages, message = session.execute(MESSAGES).one()
    seen = select(Worker.devices).where(Worker.seen_at >= time - timedelta(seconds=seen_within_seconds))
    return Census(
        jobs={row[0]: row[1] for row in session.execute(JOBS)},
        queue_oldest=age(session.scalar(OLDEST_QUEUED)),
        heartbeat_oldest=age(heartbeat),
        lease_overdue=age(lease),
        uploads={state: (number, int(size)) for state, number, size in session.execute(UPLOADS)},
        messages=messages,
        message_oldest=age(message),
        workers=Counter(devices[0]["type"] if devices else "cpu" for devices in session.scalars(seen)),
        tallies=totals(session),
    )
