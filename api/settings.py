"""Every setting of the service, read from DPDY_* variables (and a `.env` file in the working directory)."""

import re
import sys
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url


class Settings(BaseSettings):
    """One service: the API and its workers read the same variables."""

    model_config = SettingsConfigDict(env_prefix="DPDY_", env_file=".env", extra="ignore", frozen=True)

    data: Path = Field(Path("dpdy-data"), description="folder of the SQLite file, the uploads and all runs")
    database_url: str | None = Field(None, description="postgresql+psycopg://...; none: a SQLite file in `data`")
    broker_url: str | None = Field(None, description="redis://... for production workers; none: embedded only")
    storage_url: str | None = Field(
        None, description="file:///folder or s3://bucket/prefix of uploads and runs; none: `data`"
    )
    prior: str | None = Field(None, description="diffusers folder or hub id of an RGB-D model instead of the preset's")
    auth: Literal["on", "off"] | None = Field(
        None, description="API keys: `on` or `off`; unset: off for this machine, on for requests from others"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    engine: list[str] = Field(
        [sys.executable, "-m", "dpdy_core"], description="command in front of `run`, `render`, `inspect` (JSON list)"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = Field("text", description="log lines for people, or one JSON object a line")

    max_upload_bytes: int = Field(8 * 2**30, ge=1, description="largest upload")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="largest JSON body of a request")
    body_seconds: float = Field(30.0, gt=0, description="within which such a body must have come")
    max_queued_jobs: int = Field(1000, ge=1, description="jobs that may wait at one time")
    max_wait_seconds: float = Field(60.0, ge=0, description="longest long poll")
    max_log_bytes: int = Field(32 * 2**20, ge=1024, description="log kept of one job")
    min_free_bytes: int = Field(2**30, ge=0, description="free disk space below which nothing new is taken or started")
    upload_idle_seconds: float = Field(60.0, gt=0, description="longest pause within an upload")
    upload_part_hours: float = Field(
        24.0, gt=0, description="hours until an upload that nobody goes on with is deleted"
    )
    upload_ttl_hours: float = Field(48.0, gt=0, description="hours until an upload that no job needs is deleted")
    inspect_seconds: float = Field(120.0, gt=0, description="time limit of the check of an upload")
    decode_memory_bytes: int = Field(4 * 2**30, ge=2**28, description="memory of the child that decodes a user's file")
    decode_seconds: int = Field(2 * 60 * 60, ge=1, description="time limit of the child that decodes a user's file")
    decode_file_bytes: int = Field(4 * 2**30, ge=2**20, description="largest file that this child may write")
    idempotency_hours: float = Field(24.0, gt=0, description="hours an Idempotency-Key is remembered")
    stream_seconds: float = Field(600.0, gt=0, description="longest event stream; clients then reconnect")

    webhook_tries: int = Field(10, ge=1, le=20, description="tries of a webhook message until it is given up")
    webhook_retry_seconds: float = Field(
        5.0, gt=0, description="pause before the second try; four times as long each time, at most 4 hours"
    )
    webhook_loopback: bool = Field(
        False, description="for tests and development: receivers on this machine, by http and on any port, too"
    )

    retention_days: float | None = Field(
        None, gt=0, description="days until a finished job is deleted with all its files; none: kept until asked"
    )
    reserve_free_bytes: int = Field(
        2**28, ge=0, description="free disk space below which running jobs pause, for the database's sake"
    )

    heartbeat_seconds: float = Field(5.0, gt=0, description="between two signs of life of a running job")
    lease_seconds: float = Field(60.0, gt=0, description="without a sign of life a job is taken from its worker")
    poll_seconds: float = Field(2.0, gt=0, description="between two looks of an idle worker into the database")
    sweep_seconds: float = Field(15.0, gt=0, description="between two searches for lost jobs and messages")
    progress_seconds: float = Field(1.0, gt=0, description="between two writes of a running job's progress")
    grace_seconds: float = Field(8.0, gt=0, le=60, description="from the request to stop a run to killing it")
    stall_seconds: float = Field(900.0, gt=0, description="without progress a run is stopped and resumed")
    max_attempts: int = Field(3, ge=1, description="crashes until a job is given up")
    max_interruptions: int = Field(10, ge=1, description="faults of machines until a job is given up")
    retry_seconds: float = Field(
        10.0, ge=0, description="pause before a job is tried again on a machine that lacked something; doubles"
    )

    scratch: Path | None = Field(
        None, description="with s3://: local folder of this machine for what is being worked on; none: in `data`"
    )
    publish_seconds: float = Field(
        15.0, gt=0, description="with s3://: between two looks of a worker for checkpoints and files to store"
    )

    secret: SecretStr | None = Field(
        None, min_length=32, description="signs download links, the same for all APIs; none: made and kept in `data`"
    )
    session_hours: float = Field(24.0, gt=0, le=24 * 365, description="how long a browser stays signed in")
    cors_origins: list[str] = Field(
        [], description='sites whose scripts may use the API with a key (JSON list, such as ["https://lab.example"])'
    )
    link_seconds: float = Field(900.0, gt=0, description="how long a signed download link can be used")

    tenant_requests_per_minute: int = Field(3000, ge=0, description="of a tenant, for each API process; 0: no limit")
    tenant_open_requests: int = Field(
        200, ge=0, description="of a tenant at one time, for each API process; 0: no limit"
    )
    stranger_requests_per_minute: int = Field(600, ge=0, description="without a valid key, of an address; 0: no limit")
    tenant_queued_jobs: int = Field(100, ge=0, description="jobs of a tenant that may wait; 0: no limit")
    tenant_uploads: int = Field(1000, ge=0, description="uploads that a tenant may keep; 0: no limit")
    tenant_upload_bytes: int = Field(100 * 2**30, ge=0, description="bytes of these together; 0: no limit")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str | None) -> str | None:
        if value and make_url(value).get_backend_name() not in ("postgresql", "sqlite"):
            raise ValueError("use postgresql+psycopg://... or sqlite:///...")
        return value or None

    @field_validator("storage_url")
    @classmethod
    def _known_storage(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "")
        named = parts.path if parts.scheme == "file" else parts.scheme == "s3" and parts.netloc
        if value and not named:
            raise ValueError("use file:///folder or s3://bucket/prefix")
        return value or None

    @field_validator("retention_days", mode="before")
    @classmethod
    def _no_retention(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: list[str]) -> list[str]:
        if wrong := [origin for origin in value if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", origin)]:
            raise ValueError(f"{wrong[0]!r} is no origin: use https://host or https://host:port, without a path or *")
        return value

    @field_validator("broker_url", "prior", "scratch", "secret", mode="before")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @model_validator(mode="after")
    def _lease_outlasts_heartbeats(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("DPDY_LEASE_SECONDS must be at least three times DPDY_HEARTBEAT_SECONDS")
        return self

    @property
    def database(self) -> URL:
        """The database's URL, with the driver that is installed."""
        if self.database_url is None:
            return URL.create("sqlite", database=str(self.data.resolve() / "dpdy.sqlite3"))
        url = make_url(self.database_url)
        return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url

    @property
    def storage(self) -> Path:
        """The folder of uploads and jobs; with a bucket, where those are that somebody works with."""
        if self.bucket_url:
            return self.scratch_folder
        return Path(unquote(urlsplit(self.storage_url).path)) if self.storage_url else self.data.resolve()

    @property
    def bucket_url(self) -> str | None:
        """The bucket of uploads and jobs, if they are not in a folder."""
        return self.storage_url if self.storage_url and self.storage_url.startswith("s3:") else None

    @property
    def scratch_folder(self) -> Path:
        return (self.scratch or self.data / "scratch").resolve()
