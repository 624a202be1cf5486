"""What is sent and returned (CONTRACT section 5)."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from api.db.models import Artifact, Job, Upload
from api.webhooks.schemas import WebhookField, WebhookOut
from dpdy_core.config import PATH_NAMES

JOB_LINKS = ("cancel", "retry", "events", "logs", "artifacts", "artifacts.zip", "renders")
LONGEST = 10 * 365 * 86400
DEEPEST = 8
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("no control characters")
    return text


def _known_path(name: str) -> str:
    if name not in PATH_NAMES:
        raise ValueError(f"there is no camera path {name!r}; use {', '.join(PATH_NAMES)}, or a camera-path document")
    return name


def _shallow(value: Any) -> Any:
    """Refuse what is nested so deeply that reading it is a burden."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    if level:
        raise ValueError("nested too deeply")
    return value


def _future(time: datetime) -> datetime:
    if not datetime.now(UTC) < time < datetime.now(UTC) + timedelta(seconds=LONGEST):
        raise ValueError("the time must lie in the future")
    return time


Name = Annotated[str, Field(max_length=200), AfterValidator(printable)]
Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64), AfterValidator(printable)]], Field(max_length=20)
]
Deadline = Annotated[
    Annotated[Seconds, Tag("seconds")] | Annotated[AwareDatetime, AfterValidator(_future), Tag("time")],
    Discriminator(lambda value: "seconds" if isinstance(value, int | float) else "time"),
]


class PathCamera(BaseModel):
    """One frame of a camera path."""

    camera_to_world: list[Finite] = Field(description="4x4, row by row, OpenGL", min_length=16, max_length=16)
    fov: float = Field(gt=0, lt=180, description="vertical, degrees")
    aspect: float = Field(gt=0, le=100, description="width / height")
    render_time: float | None = Field(None, ge=0, le=1)

    @field_validator("camera_to_world", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        rows = isinstance(value, list) and len(value) == 4 and all(isinstance(row, list) for row in value)
        return [number for row in value for number in row] if rows else value


class CameraPath(BaseModel):
    """A nerfstudio camera-path document, as far as it is used; `name` (optional) names its video."""

    camera_path: list[PathCamera] = Field(min_length=1, max_length=5000)
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    render_width: int | None = Field(None, ge=16, le=4096)
    render_height: int | None = Field(None, ge=16, le=4096)
    fps: float | None = Field(None, gt=0, le=240)

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str | None) -> str | None:
        if name in PATH_NAMES or name == "previews":
            raise ValueError(f"{name!r} is taken")
        return name

    @model_validator(mode="after")
    def _all_times_or_none(self) -> "CameraPath":
        if len({camera.render_time is None for camera in self.camera_path}) > 1:
            raise ValueError("render_time must be given for all frames or for none")
        return self

    def file_name(self, number: int) -> str:
        """Where the worker writes it, relative to the run folder."""
        return f"camera_paths/{self.name or f'path-{number}'}.json"


PathItem = Annotated[
    Annotated[str, AfterValidator(_known_path), Tag("name")] | Annotated[CameraPath, Tag("document")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "document"),
]


class JobRequest(BaseModel):
    """A job to be made from an upload."""

    model_config = ConfigDict(extra="forbid")

    upload_id: str = Field(min_length=1, max_length=40)
    preset: str = Field("fast", max_length=40)
    settings: Annotated[dict[str, Any], BeforeValidator(_shallow)] = Field(
        default_factory=dict, description="dotted keys (`scene.steps`) or nested objects"
    )
    camera_paths: Annotated[list[PathItem], Field(min_length=1, max_length=20)] | None = Field(
        None, description="names or nerfstudio camera-path documents; default: the preset's"
    )
    name: Name | None = None
    tags: Tags = Field(default_factory=list)
    webhook: WebhookField | None = Field(None, description="a URL, or an object with `url`, `events`, `secret`")
    start_deadline: Deadline | None = Field(
        None, description="seconds from now, or a time: not started by then, the job expires"
    )
    run_deadline: Deadline | None = Field(
        None, description="seconds from the start, or a time: not finished by then, the job fails"
    )


class RenderRequest(BaseModel):
    """Another camera path from a finished job."""

    model_config = ConfigDict(extra="forbid")

    path: PathItem
    fps: float | None = Field(None, ge=0.1, le=240)
    width: int | None = Field(None, ge=16, le=4096)
    name: Name | None = None
    tags: Tags = Field(default_factory=list)
    webhook: WebhookField | None = Field(None, description="as of POST /v1/jobs")


class ProblemDocument(BaseModel):
    """An error (RFC 9457). `type` is stable."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int | None = None
    detail: str
    remedy: str = ""
    retryable: bool = False
    errors: list[dict[str, str]] = Field(default_factory=list)


class UploadOut(BaseModel):
    id: str
    filename: str
    size: int
    sha256: str | None = Field(description="null until all bytes are there")
    media_type: str
    state: Literal["receiving", "checking", "ready", "rejected"]
    report: dict[str, Any] | None = Field(description="the capture report of `dpdy inspect`")
    problem: dict[str, Any] | None
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, upload: Upload) -> Self:
        return cls.model_validate(upload, from_attributes=True)

    @field_validator("sha256")
    @classmethod
    def _unknown_is_null(cls, value: str | None) -> str | None:
        return value or None


class StageOut(BaseModel):
    name: str
    state: Literal["pending", "running", "done", "failed", "cancelled"]
    progress: float
    step: int | None
    total: int | None
    started_at: datetime | None
    finished_at: datetime | None


class JobOut(BaseModel):
    """One job. `progress` never goes back within an attempt."""

    id: str
    kind: Literal["train", "render"]
    parent_id: str | None
    upload_id: str | None
    name: str | None
    tags: list[str]
    state: Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled", "expired"]
    stage: str | None
    stages: list[StageOut]
    progress: float = Field(ge=0, le=1)
    eta_seconds: float | None
    queue_position: int | None = Field(description="1 starts next")
    attempt: int
    preset: str
    settings: dict[str, Any] = Field(description="as given; config.json of the run has all of them")
    camera_paths: list[Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    start_deadline: datetime | None
    run_deadline: datetime | None
    problem: dict[str, Any] | None
    warnings: list[str]
    metrics: dict[str, Any] | None = Field(description="evaluation/metrics.json without the single views")
    webhook: WebhookOut | None = Field(description="the receiver of its events, and each message with its tries")
    expires_at: datetime | None = Field(description="deleted then, with all its files; null: kept, or not finished")
    deleted_at: datetime | None
    receipt: dict[str, Any] | None = Field(
        description="what a deletion removed: path, kind, size and hash of each file"
    )
    links: dict[str, str]

    @classmethod
    def of(
        cls,
        job: Job,
        tags: list[str],
        queue_position: int | None,
        webhook: WebhookOut | None,
        retention_days: float | None,
    ) -> Self:
        url = f"/v1/jobs/{job.id}"
        links = {"self": url} | {name: f"{url}/{name}" for name in JOB_LINKS}
        if job.upload_id:
            links["upload"] = f"/v1/uploads/{job.upload_id}"
        if job.parent_id:
            links["parent"] = f"/v1/jobs/{job.parent_id}"
        if webhook:
            links["webhook"] = f"{url}/webhook"
        expires_at = None
        if retention_days is not None and job.finished_at is not None and job.deleted_at is None:
            expires_at = job.finished_at + timedelta(days=retention_days)
        own = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        shown = {"tags": tags, "queue_position": queue_position, "webhook": webhook, "expires_at": expires_at}
        return cls.model_validate({**own, **shown, "links": links})


class JobPage(BaseModel):
    items: list[JobOut]
    next_cursor: str | None


class LogLine(BaseModel):
    time: datetime
    attempt: int
    source: Literal["engine", "worker"]
    text: str


class LogPage(BaseModel):
    items: list[LogLine]
    next_cursor: str = Field(description="give it as `after` to go on")


class ArtifactOut(BaseModel):
    path: str
    size: int
    sha256: str
    media_type: str
    stage: str | None
    attempt: int
    created_at: datetime
    url: str = Field(description="for callers with an API key: a signed link")

    @classmethod
    def of(cls, artifact: Artifact, url: str) -> Self:
        own = {name: getattr(artifact, name) for name in cls.model_fields if name != "url"}
        return cls.model_validate({**own, "url": url})


class ArtifactList(BaseModel):
    items: list[ArtifactOut]
