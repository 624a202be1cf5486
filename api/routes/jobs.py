"""Jobs: submit, list, read, cancel, retry, delete, render again, logs."""

import asyncio
from time import monotonic
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.cursor import read_cursor, write_cursor
from api.db import queries
from api.db.models import Job
from api.deps import IdempotencyKey, Service, ServiceDep
from api.errors import ServiceError, not_found
from api.jobs import service as jobs
from api.jobs import states
from api.jobs.logs import read_job_log
from api.jobs.outbox import deliver
from api.jobs.removal import remove_job, request_removal
from api.jobs.submission import make_once, render_job, train_job
from api.quotas import check_jobs
from api.schemas import JobOut, JobPage, JobRequest, LogPage, RenderRequest
from api.webhooks import outbox as webhooks
from api.webhooks.schemas import WebhookOut

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.25
SHOWN_DELIVERIES = 5
State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired"]


@router.post("", status_code=202, summary="Submit a job")
def submit(
    request: JobRequest, response: Response, service: ServiceDep, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Validates everything now; poll, long-poll or stream the events of the job in `Location`."""
    service.files.check_space()
    settings = service.settings
    job = make_once(
        service.sessions, idempotency_key, ["job"], request, settings, lambda s: train_job(s, request, settings)
    )
    return _accepted(job, response, service)


@router.get("", summary="List jobs, newest first")
def list_jobs(
    service: ServiceDep,
    state: State | None = None,
    tag: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> JobPage:
    """Give `next_cursor` as `cursor` for the page that follows."""
    with service.sessions() as session:
        found = list(queries.jobs(session, state, tag, read_cursor(cursor), limit + 1))
        page = found[:limit]
        items = _views(session, page, service)
    last = page[-1] if len(found) > limit else None
    return JobPage(items=items, next_cursor=write_cursor(last.created_at, last.id) if last else None)


@router.get("/{job_id}", summary="State of a job")
async def get_job(
    job_id: str,
    request: Request,
    service: ServiceDep,
    wait: Annotated[float, Query(ge=0, le=3600, description="seconds; the server may wait less")] = 0,
) -> JobOut:
    """With `wait` (up to 60 s) the answer comes on the next change of the job, or at once if it is finished."""
    if wait:
        await _next_change(job_id, min(wait, service.settings.max_wait_seconds), request, service)
    return await run_in_threadpool(_view, job_id, service)


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job")
def cancel(job_id: str, service: ServiceDep) -> JobOut:
    """A waiting job ends at once; a running one within seconds, after a checkpoint. Repeats are harmless."""
    with service.sessions.begin() as session:
        jobs.request_cancel(session, existing(session, job_id))
    return _view(job_id, service)


@router.post("/{job_id}/retry", status_code=202, summary="Retry a job")
def retry(job_id: str, response: Response, service: ServiceDep) -> JobOut:
    """Another attempt of a job that failed, was cancelled or expired; it goes on from the last checkpoint."""
    with service.sessions.begin() as session:
        job = existing(session, job_id)
        upload = queries.upload(session, job.upload_id) if job.upload_id else None
        if upload and upload.deleted_at:
            detail = f"upload {upload.id} was deleted or has expired"
            raise ServiceError(409, "upload-gone", "The job cannot be retried", detail, "upload the capture again")
        check_jobs(session, more=1)
        job = jobs.retry(session, job)
    return _accepted(job, response, service)


@router.delete("/{job_id}", status_code=202, summary="Delete a job")
def delete(job_id: str, service: ServiceDep) -> JobOut:
    """Stops the job if it still goes, removes all its files, and leaves a tombstone with a receipt of them."""
    with service.sessions.begin() as session:
        existing(session, job_id)
        request_removal(session, job_id)
    remove_job(service.sessions, service.files, job_id)
    with service.sessions() as session:
        return _views(session, [session.get_one(Job, job_id)], service)[0]


@router.post("/{job_id}/renders", status_code=202, summary="Render another camera path")
def render(
    job_id: str,
    request: RenderRequest,
    response: Response,
    service: ServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> JobOut:
    """A small job of its own that renders a finished scene along `path`, without training."""
    service.files.check_space()
    settings, place = service.settings, ["render", job_id]
    job = make_once(
        service.sessions, idempotency_key, place, request, settings, lambda s: render_job(s, job_id, request, settings)
    )
    return _accepted(job, response, service)


@router.get("/{job_id}/logs", summary="Log lines")
def logs(
    job_id: str,
    service: ServiceDep,
    after: Annotated[int, Query(ge=0, le=2**62, description="`next_cursor` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> LogPage:
    """The log of all attempts; give `next_cursor` as `after` to go on."""
    with service.sessions() as session:
        existing(session, job_id)
    lines, cursor = read_job_log(service.files, job_id, after, limit)
    return LogPage.model_validate({"items": lines, "next_cursor": str(cursor)})


def existing(session: Session, job_id: str) -> Job:
    """The job. Raises 404 for an unknown and 410, with the receipt, for a deleted one."""
    job = queries.job(session, job_id)
    if job is None:
        raise not_found("job", job_id)
    if job.deleted_at:
        detail = f"job {job_id} was deleted at {job.deleted_at.isoformat(timespec='seconds')}"
        raise ServiceError(410, "deleted", "The job was deleted", detail, receipt=job.receipt)
    return job


def _accepted(job: Job, response: Response, service: Service) -> JobOut:
    """Ring for a job whose row is committed, and answer with it."""
    if job.state == states.QUEUED:
        deliver(service.sessions, service.queue)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["Retry-After"] = "2"
    return _view(job.id, service)


def _view(job_id: str, service: Service) -> JobOut:
    with service.sessions() as session:
        return _views(session, [existing(session, job_id)], service)[0]


def _views(session: Session, rows: list[Job], service: Service) -> list[JobOut]:
    ids, days = [job.id for job in rows], service.settings.retention_days
    tags, receivers = queries.tags(session, ids), webhooks.of_jobs(session, ids)

    def view(job: Job) -> JobOut:
        webhook, messages = receivers.get(job.id, (None, []))
        shown = WebhookOut.of(webhook, messages[:SHOWN_DELIVERIES]) if webhook else None
        return JobOut.of(job, tags[job.id], queries.queue_position(session, job), shown, days)

    return [view(job) for job in rows]


async def _next_change(job_id: str, seconds: float, request: Request, service: Service) -> None:
    """Return when the job changes, is finished or unknown, or after `seconds`. Holds no thread and no session."""

    def look() -> tuple[int, str] | None:
        with service.sessions() as session:
            return queries.job_version(session, job_id)

    before = await run_in_threadpool(look)
    until = monotonic() + seconds
    if before is None or before[1] in states.TERMINAL:
        return
    with service.watch.of(job_id):
        while monotonic() < until and not service.closing.is_set():
            await asyncio.sleep(min(POLL_SECONDS, max(until - monotonic(), 0)))
            if await service.watch.beyond(job_id, before[0]) or await request.is_disconnected():
                return
