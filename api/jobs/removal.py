"""Deleting for good: the files of jobs and uploads, by request or when their time is over."""

from sqlalchemy import update

from api.db import queries
from api.db.models import StudyClip, Upload, now
from api.db.session import Sessions
from api.errors import ServiceError, not_found
from api.jobs import service, states
from api.jobs.files import Files


def remove_job(sessions: Sessions, files: Files, job_id: str) -> bool:
    """Delete the files of a job whose deletion was asked for and that no longer goes; leave the tombstone."""
    with sessions() as session:
        job = queries.job(session, job_id)
        if job is None or job.delete_requested_at is None or job.deleted_at or job.state not in states.TERMINAL:
            return False
        artifacts = queries.artifacts(session, job_id)
    receipt = files.remove_job(job, artifacts)
    with sessions.begin() as session:
        job = queries.job(session, job_id)
        if job is None or job.deleted_at:
            return False
        service.mark_deleted(session, job, receipt)
    return True


def remove_upload(sessions: Sessions, files: Files, upload_id: str) -> None:
    """Delete an upload. Raises 404 for an unknown one, 409 while a job waits or runs that reads it."""
    with sessions.begin() as session:
        upload = queries.upload(session, upload_id)
        if upload is None or upload.deleted_at:
            raise not_found("upload", upload_id)
        if queries.unfinished_jobs_of_upload(session, upload_id):
            detail = f"a job that waits or runs reads upload {upload_id}"
            raise ServiceError(409, "upload-in-use", "The upload is in use", detail, "cancel the job first")
        if queries.open_study(session, StudyClip.upload_id == upload_id):
            detail = f"a study that is open shows upload {upload_id}"
            raise ServiceError(409, "upload-in-use", "The upload is in use", detail, "close the study first")
        session.execute(update(Upload).where(Upload.id == upload_id).values(deleted_at=now()))
    files.remove_upload(upload)


def remove_expired(sessions: Sessions, files: Files, part_hours: float = 24.0) -> int:
    """Delete uploads whose time is over and what broken uploads left; returns how many there were."""
    with sessions() as session:
        expired = queries.expired_uploads(session)
    for upload in expired:
        remove_upload(sessions, files, upload.id)
    oldest = now().timestamp() - part_hours * 3600
    parts = [part for part in files.uploads.glob("*.part") if part.stat().st_mtime < oldest]
    for part in parts:
        part.unlink(missing_ok=True)
    return len(expired) + len(parts)
