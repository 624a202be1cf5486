"""Where a drill happens: the operator's own database, broker and storage, in a tenant that nobody else can have.

Workers leave jobs of such tenants alone (`api.db.queries.queued_jobs`). The drill has an API and workers of its own,
which see its tenant's rows only, with the stand-in engine and quick clocks. Nothing of it is left.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import httpx
import uvicorn
from sqlalchemy import delete, select

from api import keys
from api.db.models import (
    DRILL,
    Announcement,
    ApiKey,
    Artifact,
    Attempt,
    Delivery,
    IdempotencyKey,
    Job,
    JobEvent,
    JobTag,
    Upload,
    Webhook,
    WebhookSecret,
    now,
)
from api.db.session import Sessions
from api.jobs.files import Files, make_files
from api.jobs.queue import CeleryQueue
from api.main import create_app
from api.settings import Settings
from dpdy_core.rundir import read_json
from worker.drill.bell import Bell, Mute

T = TypeVar("T")
Document = dict[str, Any]

CLOCKS: dict[str, Any] = {
    "engine": [sys.executable, "-m", "worker.standin"],
    "heartbeat_seconds": 0.5,
    "lease_seconds": 4.0,
    "poll_seconds": 0.3,
    "progress_seconds": 0.2,
    "retry_seconds": 1.0,
    "grace_seconds": 3.0,
    "publish_seconds": 0.5,
}
LONGEST = timedelta(hours=1)  # no drill takes so long: what is older was left by one that was killed
OF_JOB = (Delivery, Webhook, Artifact, JobEvent, JobTag, Announcement, Attempt)


class Failed(Exception):
    """What the installation does not do."""


class Skipped(Exception):
    """Why this cannot be tried here."""


def expect(true: object, detail: str) -> None:
    if not true:
        raise Failed(detail)


def until(ask: Callable[[], T], seconds: float, what: str) -> T:
    """The first true answer. Raises Failed if none comes in time."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        expect(time.monotonic() < end, f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
    return answer


@dataclass
class Site:
    """`http` speaks as the drill's tenant; `anybody` without a key."""

    settings: Settings
    everybodys: Sessions
    tenant: str
    files: Files
    bell: Bell
    stack: ExitStack
    http: httpx.Client = field(default_factory=httpx.Client)
    anybody: httpx.Client = field(default_factory=httpx.Client)
    worker: "subprocess.Popen[bytes] | None" = None

    @property
    def sessions(self) -> Sessions:
        """The drill's rows only."""
        return self.everybodys.of(self.tenant)

    def key(self, tenant: str) -> str:
        """A new API key, for an hour."""
        with self.everybodys.begin() as session:
            return keys.create(session, tenant, "dpdy admin drill", ["write"], now() + LONGEST)[1]

    def upload(self, body: bytes = b"a drill") -> Document:
        """A checked upload."""
        answer = self.http.post("/v1/uploads?filename=drill.mp4", content=body)
        expect(answer.status_code == 201, f"an upload was answered {answer.status_code}: {answer.text[:300]}")
        place = f"/v1/uploads/{answer.json()['id']}"

        def ready() -> Document | None:
            found: Document = self.http.get(place).json()
            return found if found["state"] == "ready" else None

        return until(ready, 30, "the check of an upload") or {}

    def body(self, **words: float) -> Document:
        """A request for a job; the words steer the stand-in engine."""
        told = ",".join(f"{key}={value}" for key, value in words.items())
        return {"upload_id": self.upload()["id"], "preset": "smoke", "settings": {"prior.token": told or "plain"}}

    def submit(self, **words: float) -> str:
        """The id of a job that was accepted."""
        answer = self.http.post("/v1/jobs", json=self.body(**words))
        expect(answer.status_code == 202, f"a job was answered {answer.status_code}: {answer.text[:300]}")
        identity: str = answer.json()["id"]
        return identity

    def job(self, job_id: str) -> Document:
        document: Document = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return document

    def ended(self, job_id: str, *wanted: str, seconds: float = 40) -> Document:
        """The job in one of the wanted states, the only ones in which it may end."""

        def ask() -> Document | None:
            job = self.job(job_id)
            over = job["state"] in ("succeeded", "failed", "cancelled", "expired")
            expect(job["state"] in wanted or not over, f"it ended {job['state']}: {job['problem']}")
            return job if job["state"] in wanted else None

        return until(ask, seconds, f"{' or '.join(wanted)}") or {}

    def step(self, job_id: str, attempt: int, step: int) -> int:
        """Wait until an attempt has come so far; the process id of its engine."""

        def reached() -> bool:
            job = self.job(job_id)
            scene = next(stage for stage in job["stages"] if stage["name"] == "scene")
            return job["attempt"] == attempt and (scene["step"] or 0) >= step

        until(reached, 40, f"step {step} of attempt {attempt}")
        return int(self.start(job_id, attempt)["pid"])

    def start(self, job_id: str, attempt: int) -> Document:
        """Where an attempt began (`first`: the checkpoint), and its engine's process id."""
        place = f"starts/{attempt}.json"
        roots = [self.files.root] if self.files.bucket is None else list(self.files.root.parent.iterdir())
        found = [path for root in roots if (path := root / "jobs" / job_id / "run" / place).exists()]
        if found:
            document: Document = read_json(found[-1])
            return document
        answer = self.http.get(f"/v1/jobs/{job_id}/artifacts/{place}")
        expect(answer.status_code == 200, f"{place} is missing")
        document = answer.json()
        return document

    def hand(self) -> "subprocess.Popen[bytes]":
        """The drill's own worker, which runs until it is killed or the drill is over."""
        if self.worker is None or self.worker.poll() is not None:
            self.worker = self.stack.enter_context(_hand(self.tenant))
        return self.worker


@contextmanager
def _hand(tenant: str) -> Iterator["subprocess.Popen[bytes]"]:
    changed = {
        f"DPDY_{name.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in CLOCKS.items()
    }
    changed |= {"DPDY_LOG_LEVEL": "error"}  # what it does is in the results
    environment = os.environ | changed | {"CUDA_VISIBLE_DEVICES": ""}  # no GPU is taken from the real workers
    command = [sys.executable, "-m", "worker.drill.hand", tenant]
    with subprocess.Popen(command, env=environment, start_new_session=True) as running:
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


@contextmanager
def site(settings: Settings, sessions: Sessions) -> Iterator[Site]:
    """A tenant with an API of its own; what is left of it, and of drills that were killed, is removed."""
    changed = settings.model_copy(
        update={**CLOCKS, "auth": "on", "max_queued_jobs": 10**9, "tenant_requests_per_minute": 0}
        | {"stranger_requests_per_minute": 0, "tenant_open_requests": 0, "tenant_queued_jobs": 0}
        | {"tenant_uploads": 0, "tenant_upload_bytes": 0}
    )
    tenant = f"{DRILL}{secrets.token_hex(4)}"
    files = make_files(changed, "admin")
    mine = sessions.of(tenant)

    def is_mine(job_id: str) -> bool:
        with mine() as session:
            return session.get(Job, job_id) is not None

    bell = Bell(CeleryQueue(settings.broker_url) if settings.broker_url else Mute(), is_mine)
    for left in _left_over(sessions):
        remove_all(sessions, files, left)
    with ExitStack() as stack:
        stack.callback(remove_all, sessions, files, tenant)
        made = Site(changed, sessions, tenant, files, bell, stack)
        url = stack.enter_context(_serving(made))
        headers = {"Authorization": f"Bearer {made.key(tenant)}"}
        made.http = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))
        made.anybody = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        yield made


@contextmanager
def _serving(made: Site) -> Iterator[str]:
    """The API in a thread of this process, on a loopback port."""
    app = create_app(made.settings, made.bell, made.sessions)  # its checks of uploads, too, see the drill's only
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="drill-api")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), 30, "the start of the drill's API")
        expect(thread.is_alive(), "the drill's API did not start")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        app.state.service.closing.set()
        server.should_exit = True
        thread.join()


def _left_over(sessions: Sessions) -> list[str]:
    """Tenants of drills that were killed."""
    old = select(ApiKey.tenant).where(ApiKey.tenant.startswith(DRILL, autoescape=True))
    with sessions() as session:
        return list(session.scalars(old.where(ApiKey.expires_at < now()).distinct()))


def remove_all(sessions: Sessions, files: Files, tenant: str) -> None:
    """Files first, then rows: what breaks off in between is found by the next drill. Also of tenants named after it."""
    assert tenant.startswith(DRILL)

    with sessions() as session:
        jobs = list(session.scalars(select(Job.id).where(Job.tenant.startswith(tenant, autoescape=True))))
        uploads = list(session.scalars(select(Upload).where(Upload.tenant.startswith(tenant, autoescape=True))))
    for job_id in jobs:
        files.remove_job(job_id)
    for upload in uploads:
        files.remove_upload(upload)
    with sessions.begin() as session:
        for table in OF_JOB:
            session.execute(delete(table).where(table.job_id.in_(jobs)))
        for owned in (IdempotencyKey, Job, Upload, WebhookSecret, ApiKey):
            session.execute(delete(owned).where(owned.tenant.startswith(tenant, autoescape=True)))
