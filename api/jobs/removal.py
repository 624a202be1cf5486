"""Deleting for good: the files of jobs and uploads, by request or when their time is over."""

from contextlib import suppress

from sqlalchemy import update
from sqlalchemy.orm import Session

from api.db import queries
from api.db.clock import database_now
from api.db.models import StudyClip, Upload, now
from api.db.session import Sessions
from api.errors import ServiceError, not_found
from api.jobs import service, states
from api.jobs.files import Files
from api.jobs.receipt import write_receipt


def request_removal(session: Session, job_id: str) -> None:
    """Ask for the deletion of a job, which is stopped if it still goes. Raises 409 while others read its files."""
    job = service.locked(session, job_id)  # nobody starts a render of it meanwhile
    if queries.live_children(session, job_id):
        raise _in_use(f"a render of job {job_id} waits or runs", "cancel the render first")
    if queries.open_study(session, StudyClip.job_id == job_id):
        raise _in_use(f"a study that is open shows renders of job {job_id}", "close the study first")
    service.request_delete(session, job)


def remove_job(sessions: Sessions, files: Files, job_id: str) -> bool:
    """Delete the files of a job whose deletion was asked for and that no longer goes; leave the tombstone.

    The receipt is stored before the first file goes. A job that goes again is not touched: who asks for a deletion and
    who asks for a retry lock the row.
    """
    with sessions() as session:
        job = queries.job(session, job_id)
        if job is None or job.delete_requested_at is None or job.deleted_at or job.state not in states.TERMINAL:
            return False
        artifacts = queries.artifacts(session, job_id)
        upload = queries.upload(session, job.upload_id) if job.upload_id else None
    receipt = write_receipt(files, job, artifacts, upload if upload and not upload.deleted_at else None)
    with sessions.begin() as session:
        job = service.locked(session, job_id)
        if job.deleted_at:
            return False
        if job.receipt is None or job.receipt["count"] <= receipt["count"]:  # two at a time: the fuller one counts
            job.receipt = receipt
    files.remove_job(job_id)
    with sessions.begin() as session:
        job = service.locked(session, job_id)
        if job.deleted_at:
            return False
        service.mark_deleted(session, job)
    return True


def request_overdue(sessions: Sessions, days: float) -> int:
    """Ask for the deletion of jobs that ended so many days ago; returns of how many."""
    with sessions() as session:
        overdue = queries.jobs_past_retention(session, days)
    asked = 0
    for job_id in overdue:
        with suppress(ServiceError), sessions.begin() as session:  # in use: next time
            service.locked(session, job_id)  # a retry may have been faster
            if queries.is_past_retention(session, job_id, days):
                request_removal(session, job_id)
                asked += 1
    return asked


def _in_use(detail: str, remedy: str) -> ServiceError:
    return ServiceError(409, "job-in-use", "The job is in use", detail, remedy)


def lock_upload(session: Session, upload_id: str) -> None:
    """Keep an upload as it is until this transaction ends."""
    session.execute(update(Upload).where(Upload.id == upload_id).values(state=Upload.state))


def remove_upload(sessions: Sessions, files: Files, upload_id: str, expired: bool = False) -> None:
    """Delete an upload, or only if its time is over. Raises 404 if there is none, 409 while something reads it."""
    with sessions.begin() as session:
        lock_upload(session, upload_id)  # no job begins to need it meanwhile
        upload = queries.upload(session, upload_id)
        if upload is None or upload.deleted_at or (expired and upload.expires_at >= database_now(session)):
            raise not_found("upload", upload_id)
        if queries.unfinished_jobs_of_upload(session, upload_id):
            detail = f"a job that waits or runs reads upload {upload_id}"
            raise ServiceError(409, "upload-in-use", "The upload is in use", detail, "cancel the job first")
        if queries.open_study(session, StudyClip.upload_id == upload_id):
            detail = f"a study that is open shows upload {upload_id}"
            raise ServiceError(409, "upload-in-use", "The upload is in use", detail, "close the study first")
        session.execute(update(Upload).where(Upload.id == upload_id).values(deleted_at=now()))
    files.remove_upload(upload)


def remove_expired(sessions: Sessions, files: Files, part_hours: float) -> int:
    """Delete uploads whose time is over, and parts that nobody waits for; returns how many there were."""
    with sessions() as session:
        expired = queries.expired_uploads(session)
    count = 0
    for upload in expired:
        with suppress(ServiceError):  # in use again, gone, or somebody has just gone on with it
            remove_upload(sessions, files, upload.id, expired=True)
            count += 1
    return count + remove_stale_parts(sessions, files, part_hours)


def remove_stale_parts(sessions: Sessions, files: Files, part_hours: float) -> int:
    """Delete parts on this disk whose uploads were deleted, and old ones that never became an upload."""
    oldest, count, parts = now().timestamp() - part_hours * 3600, 0, list(files.uploads.glob("*.part"))
    with sessions() as session:
        deleted = queries.deleted_uploads(session, [part.stem for part in parts])
    for part in parts:
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < oldest if part.stem not in deleted else deleted[part.stem]:
                part.unlink()
                count += 1
    return count
