"""What a tenant may have at one time: checked in the transaction that adds to it, wherever that is written.

`Sessions.of(tenant, quota)` carries the quota; every flush of such a session that inserts an upload or a job is
counted, behind a lock of the tenant, so that no two requests both take the last place.
"""

from dataclasses import dataclass

from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from api.db.clock import database_now
from api.db.models import Job, Upload
from api.errors import ServiceError
from api.settings import Settings

LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 20261124))")
SHORTEST, LONGEST = 60, 86400  # seconds of Retry-After


@dataclass(frozen=True)
class Quota:
    """0: without a limit."""

    jobs: int
    uploads: int
    upload_bytes: int


def quota_of(settings: Settings) -> Quota:
    """What every tenant may have."""
    return Quota(settings.tenant_queued_jobs, settings.tenant_uploads, settings.tenant_upload_bytes)


@event.listens_for(Session, "after_flush")
def _count_what_was_added(session: Session, _context: object) -> None:
    kinds = {type(row) for row in session.new}
    if Upload in kinds:
        check_uploads(session)
    if Job in kinds:
        check_jobs(session)


def check_jobs(session: Session, more: int = 0) -> None:
    """Raise 429 if `more` waiting jobs were too many for the tenant of this session."""
    quota = _locked(session)
    if quota is None or not quota.jobs:
        return
    waiting = session.scalar(select(func.count()).select_from(Job).where(Job.state == "queued")) or 0
    if waiting + more > quota.jobs:
        detail = f"{quota.jobs} jobs of a tenant may wait at one time"
        raise _exceeded("quota-jobs", "Too many of your jobs wait", detail, "wait, or cancel some", SHORTEST)


def check_uploads(session: Session, more_bytes: int = 0) -> None:
    """Raise 429 if `more_bytes` in a new upload (0: one that is counted already) were too much for the tenant."""
    quota = _locked(session)
    if quota is None:
        return
    kept = select(func.count(), func.coalesce(func.sum(Upload.size), 0), func.min(Upload.expires_at))
    number, size, expires = session.execute(kept.where(Upload.deleted_at.is_(None))).one()
    number, size = number + (more_bytes > 0), int(size) + more_bytes
    seconds = int((expires - database_now(session)).total_seconds()) + SHORTEST if expires else SHORTEST
    pause = min(max(seconds, SHORTEST), LONGEST)
    remedy = "delete uploads that you no longer need, or wait until they expire"
    if quota.uploads and number > quota.uploads:
        detail = f"a tenant may keep {quota.uploads} uploads"
        raise _exceeded("quota-uploads", "You have too many uploads", detail, remedy, pause)
    if quota.upload_bytes and size > quota.upload_bytes:
        detail = f"uploads of a tenant may have {quota.upload_bytes} bytes together; these would be {size}"
        raise _exceeded("quota-bytes", "Your uploads are too large together", detail, remedy, pause)


def _locked(session: Session) -> Quota | None:
    """The quota, with the count held until the end of the transaction. SQLite has one writer at a time anyway."""
    quota: Quota | None = session.info.get("quota")
    if quota is not None and session.get_bind().dialect.name == "postgresql":
        session.execute(LOCK, {"tenant": session.info["tenant"]})
    return quota


def _exceeded(type: str, title: str, detail: str, remedy: str, seconds: int) -> ServiceError:
    return ServiceError(429, type, title, detail, remedy, retryable=True, headers={"Retry-After": str(seconds)})
