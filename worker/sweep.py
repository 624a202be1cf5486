"""Repairs what a crash left behind. Any number of workers may sweep at once: each repair is a conditional update."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete

from api.db import queries
from api.db.clock import database_now
from api.db.models import Job, Worker
from api.db.session import Sessions
from api.jobs import service
from api.jobs.files import Files
from api.jobs.outbox import deliver
from api.jobs.queue import JobQueue
from api.jobs.removal import remove_expired, remove_job, request_overdue
from api.settings import Settings

LATE_HOURS = 24.0  # after a job's deletion somebody may still write to its folder; then `dpdy admin gc` finds it
WORKER_MEMORY = timedelta(days=1)  # how long the row of a worker that is gone stays

log = logging.getLogger(__name__)


def sweep(sessions: Sessions, queue: JobQueue, files: Files, settings: Settings) -> None:
    """One round: lost workers, messages not sent or lost, missed deadlines, deletions and what is written after them,
    old jobs and uploads.
    """
    if settings.retention_days is not None:
        request_overdue(sessions, settings.retention_days)
    with sessions() as session:
        stale = queries.stale_jobs(session)
        overdue = queries.overdue_jobs(session)
        to_delete = queries.jobs_to_delete(session)
    reap_lost(sessions, stale, settings)
    for job_id in overdue:
        with sessions.begin() as session:
            service.expire(session, job_id)
    for job_id in to_delete:
        remove_job(sessions, files, job_id)
    remove_late(sessions, files)
    remove_expired(sessions, files, settings.upload_part_hours)
    with sessions.begin() as session:
        session.execute(delete(Worker).where(Worker.seen_at < database_now(session) - WORKER_MEMORY))
    deliver(sessions, queue)
    announce_lost(sessions, queue)


def remove_late(sessions: Sessions, files: Files) -> None:
    """What was written of a job after its deletion: by an engine or a worker that hung, and that nobody could stop."""
    with sessions() as session:
        deleted = queries.lately_deleted_jobs(session, LATE_HOURS)
    for job_id in deleted:
        if files.job(job_id).exists():
            log.warning("job %s: it was deleted, and something wrote to its folder after that: removed", job_id)
            files.remove_job(job_id)


def reap_lost(sessions: Sessions, stale: Sequence[Job], settings: Settings) -> None:
    """Take jobs whose leases have expired from their workers."""
    for job in stale:
        with sessions.begin() as session:
            state = service.reap(session, job.id, job.attempt, settings)
        if state:
            log.warning("job %s: its worker (%s) is lost; it is %s now", job.id, job.owner, state)


def announce_lost(sessions: Sessions, queue: JobQueue) -> int:
    """Ring again for all waiting jobs if no message is left (broker wiped, API killed between commit and message)."""
    with sessions() as session:
        waiting = queries.queued_jobs(session)
    if not waiting or queue.waiting() != 0:
        return 0
    for job_id in waiting:
        queue.announce(job_id)
    return len(waiting)
