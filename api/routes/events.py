"""The events of a job as a stream (SSE), resumable without a gap.

Each event has `id` (rising by one within the job), `event` (its kind) and `data`: an object with `id`, `job_id`,
`time`, `attempt`, `event`, and the job's `state`, `stage`, `progress` and `eta_seconds` at that moment. Kinds add:
`state` (`problem`, `metrics`; a terminal `state` ends the stream), `stage` (`stage_state`), `progress` (`step`,
`total`, `stage_progress`, `numbers`), `warning` (`message`), `preview` (`path`, `url`), `deleting`, `deleted`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.db import queries
from api.db.models import JobEvent
from api.deps import Service, ServiceDep
from api.errors import invalid
from api.jobs import states
from api.jobs.stages import timestamp
from api.routes.jobs import existing

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

POLL_SECONDS = 0.25
PING_SECONDS = 15.0
RETRY_MILLISECONDS = 2000


def _start(
    job_id: str,
    service: ServiceDep,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    after: Annotated[int | None, Query(ge=0, description="like Last-Event-ID, for clients without headers")] = None,
) -> int:
    """The event after which the stream starts; checked before the stream begins, so that errors have a status."""
    with service.sessions() as session:
        existing(session, job_id)
    if last_event_id and not (last_event_id.isdecimal() and len(last_event_id) < 16):
        raise invalid([{"field": "Last-Event-ID", "detail": "not an id of this stream"}])
    return int(last_event_id) if last_event_id else (after or 0)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "The stream."}},
    summary="Stream the events of a job",
)
async def events(job_id: str, service: ServiceDep, start: Annotated[int, Depends(_start)]) -> StreamingResponse:
    """All events after `Last-Event-ID`, then new ones as they happen. Ends with the terminal event."""
    # not fastapi.sse: at 0.165 a listener who leaves during a keep-alive makes it raise BrokenResourceError
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(job_id, service, start), media_type="text/event-stream", headers=headers)


async def _stream(job_id: str, service: Service, start: int) -> AsyncIterator[str]:
    number, now = start, monotonic()
    until, ping = now + service.settings.stream_seconds, now + PING_SECONDS
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    with service.watch.of(job_id, events=True):
        rows, version = await run_in_threadpool(_read, job_id, number, service)
        while monotonic() < until and not service.closing.is_set():
            for row in rows:
                number, ping = row.number, monotonic() + PING_SECONDS
                yield _frame(row)
            if version is None or (version[1] in states.TERMINAL and number >= version[0]):
                return
            seen = None
            while number >= version[0] and seen is None:
                if monotonic() >= until or service.closing.is_set():
                    return
                if monotonic() >= ping:
                    ping = monotonic() + PING_SECONDS
                    yield ": ping\n\n"  # so that proxies keep the connection and a listener who left is noticed
                await asyncio.sleep(POLL_SECONDS)
                seen = await service.watch.beyond(job_id, number)
            shared = seen.after(number) if seen else None
            if seen and shared is not None:
                rows, version = shared, (seen.version, seen.state)
            else:
                rows, version = await run_in_threadpool(_read, job_id, number, service)


@lru_cache(maxsize=512)
def _frame(row: JobEvent) -> str:
    """An event as it is sent; all who listen to a job are sent the same one."""
    return f"id: {row.number}\nevent: {row.kind}\ndata: {json.dumps(_data(row))}\n\n"


def _read(job_id: str, after: int, service: Service) -> tuple[Sequence[JobEvent], tuple[int, str] | None]:
    """The next events, then the version and state of the job: in this order none is missed without being noticed."""
    with service.sessions() as session:
        return queries.events(session, job_id, after), queries.job_version(session, job_id)


def _data(row: JobEvent) -> dict[str, object]:
    data = {"id": row.number, "job_id": row.job_id, "time": timestamp(row.time), "attempt": row.attempt}
    data |= {"event": row.kind, **row.data}
    if row.kind == "preview":
        data["url"] = f"/v1/jobs/{row.job_id}/artifacts/{row.data['path']}"
    return data
