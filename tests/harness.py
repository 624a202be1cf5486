"""The service inside a test: real application, database and runner, the stand-in engine, jobs run on demand."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import uvicorn
from fastapi.testclient import TestClient

from api import keys
from api.db.models import Base
from api.db.session import Sessions, make_engine, make_sessions
from api.jobs.queue import WakeQueue
from api.main import create_app
from api.settings import Settings
from migrations import stamp
from tests.servers import wait_for
from worker.invariants import Violation, check
from worker.runner import Runner

Document = dict[str, Any]


def steer(**words: float) -> Document:
    """Settings that tell the stand-in engine what to do (see worker/standin/)."""
    return {"prior.token": ",".join(f"{key}={value}" for key, value in words.items()) or "plain"}


def upload(http: httpx.Client, body: bytes = b"video", filename: str = "a.mp4") -> str:
    """The id of a checked upload."""
    answer = http.post(f"/v1/uploads?filename={filename}", content=body)
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["id"]
    wait_for(lambda: http.get(f"/v1/uploads/{identity}").json()["state"] == "ready")
    return identity


def submit(http: httpx.Client, upload_id: str, settings: Document | None = None, **fields: Any) -> Document:
    """A job as its 202 shows it."""
    body = {"upload_id": upload_id, "preset": "smoke", "settings": settings or {}, **fields}
    answer = http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    document: Document = answer.json()
    return document


def job_when(http: httpx.Client, job_id: str, *wanted: str, seconds: float = 20) -> Document:
    """The job once its state is one of `wanted`."""

    def ask() -> Document | None:
        job: Document = http.get(f"/v1/jobs/{job_id}").json()
        return job if job["state"] in wanted else None

    return wait_for(ask, seconds) or {}


def make_key(sessions: Sessions, tenant: str = "ours", *scopes: str, expires_at: datetime | None = None) -> str:
    """A new API key."""
    with sessions.begin() as session:
        return keys.create(session, tenant, "", scopes or ("write",), expires_at)[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Harness:
    """Jobs run when the test calls `runner.run(job_id)`."""

    settings: Settings
    sessions: Sessions
    http: TestClient
    runner: Runner
    any_upload: str = ""  # of the jobs that do not name theirs

    def job(self, job_id: str) -> Document:
        document: Document = self.http.get(f"/v1/jobs/{job_id}").json()
        return document

    def upload(self, body: bytes = b"video", filename: str = "a.mp4") -> str:
        return upload(self.http, body, filename)

    def submit(self, settings: Document | None = None, upload_id: str | None = None, **fields: Any) -> Document:
        self.any_upload = self.any_upload or upload_id or self.upload()
        return submit(self.http, upload_id or self.any_upload, settings, **fields)

    def finished(self, **words: float) -> Document:
        """A job that was run to its end."""
        job = self.submit(steer(**words))
        assert self.runner.run(job["id"])
        return self.job(job["id"])


def lasting_violations(service: Harness, seconds: float = 20) -> list[Violation]:
    """What breaks a rule and does not pass: a check of an upload that still runs may begin and end while we look."""
    until = time.monotonic() + seconds
    while found := check(service.sessions, service.runner.files, service.settings):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return found


@contextmanager
def harness(settings: Settings) -> Iterator[Harness]:
    """A database and the application over it. The tables come from the models: quicker than migrating each time."""
    engine = make_engine(settings.database)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        stamp(connection)
    sessions = make_sessions(engine)
    queue = WakeQueue()
    app = create_app(settings, queue, sessions)
    with TestClient(app, raise_server_exceptions=False) as http:
        yield Harness(settings, sessions, http, Runner(settings, sessions, queue, "test-worker"))
    engine.dispose()


@contextmanager
def served(service: Harness) -> Iterator[int]:
    """The port on which the application of the harness listens."""
    server = uvicorn.Server(uvicorn.Config(service.http.app, port=0, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
