"""PostgreSQL, Redis, `dpdy worker` and uvicorn as real processes; only the engine is a stand-in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import redis
from sqlalchemy import make_url

from api.jobs.queue import QUEUE, TASK, make_celery
from migrations import upgrade
from tests.conftest import STANDIN
from tests.harness import Document, job_when, steer, submit, upload
from tests.servers import free_port, process, wait_for, wait_ready

LONG = {"steps": 400, "sleep": 0.05}


@dataclass
class Production:
    environment: dict[str, str]
    data: Path
    redis_url: str
    http: httpx.Client = field(default_factory=httpx.Client)

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with process(command, env=self.environment) as api, httpx.Client(base_url=url, timeout=20) as self.http:
            wait_ready(url, api)
            yield self.http

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """One worker, once the API has seen it."""
        before = self.seen()
        with process([sys.executable, "-m", "dpdy", "worker"], env=self.environment) as running:

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


@pytest.fixture
def production(postgres_url: str, redis_url: str, tmp_path: Path) -> Production:
    upgrade(make_url(postgres_url))
    environment = os.environ | {
        "DPDY_DATABASE_URL": postgres_url,
        "DPDY_BROKER_URL": redis_url,
        "DPDY_STORAGE_URL": f"file://{tmp_path}",
        "DPDY_ENGINE": json.dumps(STANDIN),
        "DPDY_MIN_FREE_BYTES": "0",
        "DPDY_PROGRESS_SECONDS": "0.1",
        "DPDY_HEARTBEAT_SECONDS": "0.5",
        "DPDY_LEASE_SECONDS": "3",
        "DPDY_SWEEP_SECONDS": "0.5",
        "DPDY_POLL_SECONDS": "1",
    }
    return Production(environment, tmp_path, redis_url)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


def test_submit_cancel_and_kills(production: Production) -> None:
    with production.api() as http, production.worker() as worker:
        assert http.get("/readyz").status_code == 200
        done = job_when(http, production.submit(steps=4)["id"], "succeeded")
        assert done["progress"] == 1.0

        job = production.submit(**LONG)
        pid = production.in_scene(job["id"])
        http.post(f"/v1/jobs/{job['id']}/cancel")
        job_when(http, job["id"], "cancelled", seconds=10)
        assert gone(pid)

        killed = production.submit(steps=60, sleep=0.05)
        os.kill(production.in_scene(killed["id"]), signal.SIGKILL)
        done = job_when(http, killed["id"], "succeeded", seconds=30)
        assert (done["attempt"], production.start(killed["id"], 2)["first"] >= 3) == (2, True)

        orphaned = production.submit(steps=80, sleep=0.05)
        pid = production.in_scene(orphaned["id"])
        worker.kill()
        worker.wait()
        wait_for(lambda: gone(pid), 5)  # the child does not outlive its worker
        with production.worker():
            done = job_when(http, orphaned["id"], "succeeded", seconds=40)
            assert (done["attempt"], production.start(orphaned["id"], 2)["first"] >= 3) == (2, True)


def test_two_workers_with_lost_and_doubled_messages(production: Production) -> None:
    celery = make_celery(production.redis_url)
    with redis.Redis.from_url(production.redis_url) as broker, production.api() as http, ExitStack() as stack:
        early = production.submit(steps=4)
        broker.flushall()  # the message is lost before any worker is there
        workers = [stack.enter_context(production.worker()) for _ in range(2)]
        job_when(http, early["id"], "succeeded")

        job = production.submit(steps=30, sleep=0.05)
        for _ in range(10):
            celery.send_task(TASK, args=[job["id"]], queue=QUEUE)
        production.in_scene(job["id"])
        broker.flushall()
        later = production.submit(steps=4)
        broker.flushall()
        assert job_when(http, job["id"], "succeeded")["attempt"] == 1
        assert job_when(http, later["id"], "succeeded")["attempt"] == 1
        assert [path.name for path in production.run(job["id"]).joinpath("starts").glob("*.json")] == ["1.json"]

        # a worker that is stopped hands its job over
        moved = production.submit(steps=100, sleep=0.05)
        child = production.in_scene(moved["id"])
        (holder,) = [worker for worker in workers if worker.pid == psutil.Process(child).ppid()]
        holder.terminate()
        assert holder.wait(15) == 0, holder.log.read_text()[-3000:]  # type: ignore[attr-defined]
        done = job_when(http, moved["id"], "succeeded", seconds=40)
        assert done["attempt"] == 2
        assert "attempt 1: its worker stopped and gave it back" in done["warnings"]
    celery.close()


def test_without_broker_and_with_a_database_that_drops_connections(production: Production, postgres_url: str) -> None:
    production.environment |= {"DPDY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    with production.api() as http, production.worker():
        job = submit(http, upload(http), steer(steps=60, sleep=0.05))
        production.in_scene(job["id"])
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
            for _ in range(5):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                time.sleep(0.2)
        done = job_when(http, job["id"], "succeeded", seconds=30)
        assert (done["attempt"], done["progress"]) == (1, 1.0)
