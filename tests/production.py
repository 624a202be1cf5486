"""The service in its production form as real processes; only the engine is a stand-in."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import make_url

from api.db.session import make_engine, make_sessions
from api.jobs.files import make_files
from api.settings import Settings
from migrations import upgrade
from tests.harness import Document, steer, submit, upload
from tests.servers import free_port, process, wait_for, wait_ready
from worker.invariants import Violation, check

STANDIN = [sys.executable, "-m", "worker.standin"]
API = "api.main:create_app"
WORKER = [sys.executable, "-m", "dpdy", "worker"]
LONG = {"steps": 400, "sleep": 0.05}


@dataclass
class Production:
    environment: dict[str, str]
    data: Path
    redis_url: str
    http: httpx.Client = field(default_factory=httpx.Client)

    @contextmanager
    def api(self, factory: str = API) -> Iterator[httpx.Client]:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with process(command, env=self.environment) as api, httpx.Client(base_url=url, timeout=20) as self.http:
            wait_ready(url, api)
            yield self.http

    @contextmanager
    def worker(
        self, command: list[str] = WORKER, variables: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """One worker, once the API has seen it."""
        before = self.seen()
        with process(command, env=self.environment | (variables or {})) as running:

            def seen() -> bool:
                assert running.poll() is None, running.log.read_text()[-3000:]  # type: ignore[attr-defined]
                return bool(self.seen() - before)

            wait_for(seen, 40)
            yield running

    def seen(self) -> set[str]:
        return {worker["id"] for worker in self.http.get("/v1/info").json()["workers"]}

    def submit(self, **words: float) -> Document:
        return submit(self.http, upload(self.http), steer(**words))

    def in_scene(self, job_id: str, attempt: int = 1, step: int = 3) -> int:
        """The process id of the attempt's child, once it has come so far."""

        def ask() -> bool:
            job = self.http.get(f"/v1/jobs/{job_id}").json()
            scene = next(stage for stage in job["stages"] if stage["name"] == "scene")
            return job["attempt"] == attempt and (scene["step"] or 0) >= step

        wait_for(ask, 30)
        pid: int = self.start(job_id, attempt)["pid"]
        return pid

    def start(self, job_id: str, attempt: int) -> Document:
        document: Document = json.loads(self.run(job_id).joinpath("starts", f"{attempt}.json").read_text())
        return document

    def run(self, job_id: str) -> Path:
        return self.data / "jobs" / job_id / "run"

    def violations(self) -> list[Violation]:
        """What the invariant checker says of it."""
        values = {key.removeprefix("DPDY_").lower(): value for key, value in self.environment.items()}
        settings = Settings(_env_file=None, **{k: v for k, v in values.items() if k in FROM_ENVIRONMENT})  # type: ignore[call-arg,arg-type]
        engine = make_engine(settings.database)
        try:
            return check(make_sessions(engine), make_files(settings), settings)
        finally:
            engine.dispose()


FROM_ENVIRONMENT = ("database_url", "storage_url", "scratch", "max_attempts", "max_interruptions")


def make_production(postgres_url: str, redis_url: str, data: Path, **variables: str) -> Production:
    """A migrated database, and the environment of API and workers with quick clocks."""
    upgrade(make_url(postgres_url))
    environment = os.environ | {
        "DPDY_DATABASE_URL": postgres_url,
        "DPDY_BROKER_URL": redis_url,
        "DPDY_DATA": str(data),
        "DPDY_STORAGE_URL": f"file://{data}",
        "DPDY_ENGINE": json.dumps(STANDIN),
        "DPDY_MIN_FREE_BYTES": "0",
        "DPDY_PROGRESS_SECONDS": "0.1",
        "DPDY_HEARTBEAT_SECONDS": "0.5",
        "DPDY_LEASE_SECONDS": "4",
        "DPDY_SWEEP_SECONDS": "0.5",
        "DPDY_POLL_SECONDS": "1",
        "DPDY_RETRY_SECONDS": "1",
        **variables,
    }
    return Production(environment, data, redis_url)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()
