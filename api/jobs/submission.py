"""From a request to a queued job: everything that can be wrong with it is found here, before the 202."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.db import queries
from api.db.models import IdempotencyKey, Job, Upload, Webhook, now
from api.db.session import Sessions
from api.errors import FieldErrors, ServiceError, field_errors, invalid, not_found
from api.jobs import service
from api.jobs.files import new_id
from api.jobs.removal import lock_upload
from api.jobs.stages import fresh_stages
from api.schemas import CameraPath, JobRequest, RenderRequest
from api.settings import Settings
from api.webhooks import target
from api.webhooks.schemas import WebhookRequest
from dpdy_core.config import PATH_NAMES, RunConfig
from dpdy_core.errors import BadSettings
from dpdy_core.presets import PRESETS, resolve

MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
Make = Callable[[Session], Job]


def make_once(
    sessions: Sessions,
    key: str | None,
    place: list[str],
    request: JobRequest | RenderRequest,
    settings: Settings,
    make: Make,
) -> Job:
    """Submit the job that `make` builds of a request; under a key that was used before, the job of then.

    `place`: what the request is about, besides its body.

    Raises 422 if the key came with another request. Of two at the same time one makes the job, both get it.
    """
    body = json.dumps([*place, request.model_dump(mode="json")], sort_keys=True)
    fingerprint = hashlib.sha256(body.encode()).hexdigest()
    hours = settings.idempotency_hours
    for _ in range(2):
        try:
            with sessions.begin() as session:
                if key and (job := _earlier(session, key, fingerprint, hours)):
                    return job
                job = make(session)
                service.submit(session, job, request.tags, _receiver(job, request.webhook, settings))
                if key:
                    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < _since(hours)))
                    session.add(IdempotencyKey(key=key, fingerprint=fingerprint, job_id=job.id, created_at=now()))
                return job
        except IntegrityError:
            continue  # a twin was faster: it is there now
    raise ServiceError(409, "idempotency-conflict", "Try again", "a request with this key is under way", retryable=True)


def _receiver(job: Job, wanted: WebhookRequest | None, settings: Settings) -> Webhook | None:
    """The row of a webhook. Raises 422 for a receiver that is not allowed, as far as its URL tells."""
    if wanted is None:
        return None
    try:
        target.parse(wanted.url, settings.webhook_loopback)
    except target.Refused as refused:
        raise invalid([{"field": "webhook.url", "detail": str(refused)}], "bad-webhook") from refused
    return Webhook(job_id=job.id, url=wanted.url, events=wanted.events, secret=wanted.secret)


def _since(hours: float) -> datetime:
    return now() - timedelta(hours=hours)


def _earlier(session: Session, key: str, fingerprint: str, hours: float) -> Job | None:
    entry = queries.idempotency_key(session, key, _since(hours))
    if entry is None:
        return None
    if entry.fingerprint != fingerprint:
        raise ServiceError(
            422,
            "idempotency-key-reused",
            "The Idempotency-Key was used for another request",
            f"key {key!r} came with another body before",
            "use a new key for a new request",
        )
    return queries.job(session, entry.job_id)


def train_job(session: Session, request: JobRequest, settings: Settings) -> Job:
    """The job that a request asks for, all settings resolved."""
    config = resolve_settings(request.preset, request.settings, settings.prior)
    names, documents = name_paths(request.camera_paths or [])
    if request.camera_paths:
        config = config.model_copy(update={"render": config.render.model_copy(update={"paths": tuple(names)})})
    lock_upload(session, request.upload_id)  # nobody deletes it before our row is there
    upload = ready_upload(session, request.upload_id)
    _check_queue(session, settings)
    created = now()
    job = _new_job("train", request.name, request.preset, created)
    job.upload_id = upload.id
    job.settings = request.settings
    job.config = config.model_dump(mode="json")
    job.camera_paths = documents
    job.start_deadline = _as_time(request.start_deadline, created)
    if isinstance(request.run_deadline, datetime):
        job.run_deadline = request.run_deadline
    else:
        job.run_seconds = request.run_deadline
    return job


def render_job(session: Session, parent_id: str, request: RenderRequest, settings: Settings) -> Job:
    """Another camera path from a finished job, as a job of its own."""
    if queries.job(session, parent_id) is None:
        raise not_found("job", parent_id)
    parent = service.locked(session, parent_id)  # nobody deletes it before our row is there
    if parent.kind != "train" or parent.state != "succeeded" or parent.delete_requested_at:
        raise ServiceError(
            409,
            "not-finished",
            "The job has no finished scene",
            f"job {parent.id} is a {parent.kind} job that is {parent.state}",
            "render from a job that succeeded",
            retryable=parent.kind == "train" and parent.state in ("queued", "running"),
        )
    _check_queue(session, settings)
    names, documents = name_paths([request.path])
    job = _new_job("render", request.name, parent.preset, now())
    job.parent_id = parent.id
    job.settings = {"fps": request.fps, "width": request.width}
    job.config = {"path": names[0], **job.settings}
    job.camera_paths = documents
    return job


def _new_job(kind: str, name: str | None, preset: str, created: datetime) -> Job:
    return Job(
        id=new_id("job"),
        kind=kind,
        name=name,
        preset=preset,
        state="queued",
        version=1,
        attempt=1,
        first_attempt=1,
        stages=fresh_stages(kind),
        progress=0.0,
        warnings=[],
        created_at=created,
        queued_at=created,
    )


def resolve_settings(preset: str, overrides: dict[str, Any], prior: str | None) -> RunConfig:
    """The full config. Raises 422 with one entry in `errors` for each wrong field.

    Paths and local folders of the server are not the user's to name.
    """
    if preset not in PRESETS:
        raise invalid([{"field": "preset", "detail": f"there is no preset {preset!r}; use {', '.join(PRESETS)}"}])
    try:
        config = resolve(preset, overrides)
        default = resolve(preset)
    except BadSettings as error:
        cause = error.__cause__
        errors = field_errors(cause, ("settings",)) if isinstance(cause, ValidationError) else None
        errors = errors or [{"field": "settings", "detail": error.detail}]
        raise invalid(
            errors, "bad-settings", "GET /v1/presets lists every setting with its type and default"
        ) from error
    if prior and config.prior.model == default.prior.model:
        config = config.model_copy(update={"prior": config.prior.model_copy(update={"model": prior})})
    if errors := _forbidden(config, {default.prior.model, prior}):
        raise invalid(errors, "bad-settings")
    return config


def _forbidden(config: RunConfig, known: set[str | None]) -> FieldErrors:
    errors = []
    for name in config.render.paths:
        if name not in PATH_NAMES:
            detail = f"{name!r} is no camera path; use {', '.join(PATH_NAMES)}, or give documents in `camera_paths`"
            errors.append({"field": "settings.render.paths", "detail": detail})
    models = {
        "prior.model": config.prior.model,
        "prior.motion_adapter": config.prior.motion_adapter,
        "depth.model": config.depth.model,
        "masks.model": config.masks.model,
    }
    for field, model in models.items():
        if model is not None and model not in known and not MODEL_NAME.fullmatch(model):
            errors.append({"field": f"settings.{field}", "detail": f"{model!r} is no hub id (owner/name)"})
    return errors


def name_paths(paths: list[str | CameraPath]) -> tuple[list[str], list[Any]]:
    """Names for the config (of documents: the file that the worker writes), and the paths as the user gave them."""
    names: list[str] = []
    documents: list[Any] = []
    for number, path in enumerate(paths, start=1):
        if isinstance(path, str):
            names.append(path)
            documents.append(path)
        else:
            names.append(path.file_name(number))
            documents.append(path.model_dump(mode="json", exclude_none=True))
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise invalid([{"field": "camera_paths", "detail": f"given twice: {', '.join(repeated)}"}])
    return names, documents


def ready_upload(session: Session, upload_id: str) -> Upload:
    """The upload if a job may use it."""
    upload = queries.upload(session, upload_id)
    if upload is None or upload.deleted_at:
        raise ServiceError(
            422,
            "upload-not-found",
            "There is no such upload",
            f"there is no upload {upload_id!r}",
            "upload the capture first",
            errors=[{"field": "upload_id", "detail": "unknown or expired"}],
        )
    if upload.state == "ready":
        return upload
    if upload.state == "rejected":
        problem = upload.problem or {}
        raise ServiceError(
            422,
            problem.get("type", "bad-input"),
            problem.get("title", "The capture cannot be used"),
            problem.get("detail", "the upload was rejected"),
            problem.get("remedy", ""),
            errors=[{"field": "upload_id", "detail": "the upload was rejected"}],
        )
    raise ServiceError(
        409,
        "upload-not-ready",
        "The upload is being checked",
        f"upload {upload_id} is {upload.state}",
        "ask again in a moment",
        retryable=True,
        headers={"Retry-After": "1"},
    )


def _check_queue(session: Session, settings: Settings) -> None:
    if queries.queued_count(session) >= settings.max_queued_jobs:
        raise ServiceError(
            429,
            "queue-full",
            "Too many jobs wait",
            f"{settings.max_queued_jobs} jobs may wait at one time",
            "try again later",
            retryable=True,
            headers={"Retry-After": "60"},
        )


def _as_time(deadline: datetime | float | None, start: datetime) -> datetime | None:
    """A deadline in seconds from `start`, or a time, as a time."""
    return start + timedelta(seconds=deadline) if isinstance(deadline, int | float) else deadline
