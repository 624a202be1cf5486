"""What can be asked for: presets, every setting as JSON Schema, limits, versions, devices."""

from typing import Any

from fastapi import APIRouter

from api.db import queries
from api.deps import CallerDep, ServiceDep
from api.routes.tus import CHECKSUMS, EXTENSIONS
from api.routes.tus_protocol import PREFIX, VERSION
from dpdy_core import __version__
from dpdy_core.config import PATH_NAMES, STAGES, RunConfig
from dpdy_core.presets import PRESETS

router = APIRouter(prefix="/v1", tags=["service"])

LIMITS = (
    "max_upload_bytes",
    "max_body_bytes",
    "max_queued_jobs",
    "max_wait_seconds",
    "upload_part_hours",
    "upload_idle_seconds",
    "upload_ttl_hours",
    "retention_days",
    "idempotency_hours",
    "stream_seconds",
    "link_seconds",
    "max_attempts",
)
TENANT_LIMITS = (  # only where keys are needed; 0: none
    "tenant_requests_per_minute",
    "tenant_open_requests",
    "tenant_queued_jobs",
    "tenant_uploads",
    "tenant_upload_bytes",
)


@router.get("/presets", summary="Presets and settings")
def presets() -> dict[str, Any]:
    """Each preset with all its values, and the JSON Schema of the settings (descriptions, ranges, defaults)."""
    items = [
        {"name": name, "description": (make.__doc__ or "").strip(), "settings": make().model_dump(mode="json")}
        for name, make in PRESETS.items()
    ]
    return {
        "items": items,
        "default": "fast",
        "schema": RunConfig.model_json_schema(),
        "camera_paths": PATH_NAMES,
        "stages": STAGES,
    }


@router.get("/info", summary="Limits, versions, devices")
def info(service: ServiceDep, caller: CallerDep) -> dict[str, Any]:
    """What a client should know before it sends anything. `workers` are those that showed themselves lately.

    `auth` says whether a key is needed, `scopes` what the caller's allow; workers are not shown to strangers.
    """
    settings = service.settings
    with service.sessions() as session:
        workers = queries.workers(session, settings.lease_seconds) if caller.scopes else []
    return {
        "version": __version__,
        "api": "v1",
        "limits": {name: getattr(settings, name) for name in (*LIMITS, *(TENANT_LIMITS if caller.keys_needed else ()))},
        "resumable_uploads": {
            "protocol": f"tus {VERSION}",
            "url": PREFIX,
            "extensions": EXTENSIONS,
            "checksums": list(CHECKSUMS),
        },
        "presets": list(PRESETS),
        "stages": STAGES,
        "camera_paths": PATH_NAMES,
        "auth": "on" if caller.keys_needed else "off",
        "tenant": caller.tenant or None,
        "scopes": caller.scopes,
        "embedded": settings.broker_url is None,
        "workers": [
            {"id": row.id, "version": row.version, "devices": row.devices, "seen_at": row.seen_at, "drain": row.drain}
            for row in workers
        ],
        "devices": [device for row in workers for device in row.devices],
    }
