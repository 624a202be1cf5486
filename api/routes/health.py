"""Alive, and ready: what a supervisor and a load balancer ask."""

import logging
from typing import Any

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from api.db import queries
from api.deps import EverybodysDep, Service
from api.errors import ServiceError
from dpdy_core import __version__
from migrations import is_behind

router = APIRouter(tags=["service"])
log = logging.getLogger(__name__)


@router.get("/livez", summary="Is the process alive?")
def livez() -> dict[str, str]:
    """Says nothing about the database or the workers."""
    return {"status": "alive", "version": __version__}


@router.get("/readyz", summary="Can jobs be taken and run?")
def readyz(service: EverybodysDep) -> JSONResponse:
    """503 unless the database answers and is migrated, the storage can be written, and a worker was seen lately."""
    checks = {"database": _database(service), "storage": _storage(service)}
    checks["worker"] = _worker(service) if checks["database"] == "ok" else "unknown"
    ready = all(state == "ok" for state in checks.values())
    body: dict[str, Any] = {"status": "ready" if ready else "not ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503, headers={} if ready else {"Retry-After": "5"})


def _database(service: Service) -> str:
    try:
        with service.sessions() as session:
            behind = is_behind(session.connection())
    except SQLAlchemyError as error:
        log.warning("not ready: %s", error)
        return "the database does not answer"
    return "the database is older than this program (`python -m migrations`)" if behind else "ok"


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
