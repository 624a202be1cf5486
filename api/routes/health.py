"""Alive, ready, and the numbers for Prometheus (read from the database, so every process tells the same)."""

import logging
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from api.db import queries
from api.db.models import JOB_STATES, UPLOAD_STATES, now
from api.deps import Service, ServiceDep
from api.errors import ServiceError
from dpdy_core import __version__

router = APIRouter(tags=["service"])
log = logging.getLogger(__name__)


@router.get("/livez", summary="Is the process alive?")
def livez() -> dict[str, str]:
    """Says nothing about the database or the workers."""
    return {"status": "alive", "version": __version__}


@router.get("/readyz", summary="Can jobs be taken and run?")
def readyz(service: ServiceDep) -> JSONResponse:
    """503 unless the database answers, the storage has room, and a worker was seen lately."""
    checks = {"database": _database(service), "storage": _storage(service)}
    checks["worker"] = _worker(service) if checks["database"] == "ok" else "unknown"
    ready = all(state == "ok" for state in checks.values())
    body: dict[str, Any] = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "5"})


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(service: ServiceDep) -> Response:
    """Queue, leases, workers and uploads as gauges."""
    registry = CollectorRegistry()
    with service.sessions() as session:
        jobs, uploads = queries.count_by_state(session)
        queued, heartbeat = queries.oldest(session)
        workers = queries.workers(session, service.settings.lease_seconds)
    by_state = Gauge("dpdy_jobs", "Jobs by state", ["state"], registry=registry)
    for state in JOB_STATES:
        by_state.labels(state).set(jobs.get(state, 0))
    received = Gauge("dpdy_uploads", "Uploads by state", ["state"], registry=registry)
    for state in UPLOAD_STATES:
        received.labels(state).set(uploads.get(state, 0))
    time = now()
    for name, text, since in (
        ("dpdy_queue_oldest_seconds", "How long the oldest waiting job has waited", queued),
        ("dpdy_heartbeat_oldest_seconds", "Since the oldest sign of life of a running job", heartbeat),
    ):
        Gauge(name, text, registry=registry).set((time - since).total_seconds() if since else 0)
    Gauge("dpdy_workers", "Workers that showed themselves lately", registry=registry).set(len(workers))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _database(service: Service) -> str:
    try:
        with service.sessions() as session:
            queries.queued_count(session)
    except SQLAlchemyError as error:
        log.warning("not ready: %s", error)
        return "the database does not answer or was not migrated (`python -m migrations`)"
    return "ok"


def _storage(service: Service) -> str:
    try:
        service.files.check_space()
        service.files.probe()
    except (ServiceError, OSError) as error:
        return str(error)
    return "ok"


def _worker(service: Service) -> str:
    with service.sessions() as session:
        seen = queries.workers(session, service.settings.lease_seconds)
    return "ok" if seen else "no worker was seen lately (`dpdy worker`)"
