"""PostgreSQL, Redis, `dpdy worker` and uvicorn as real processes; only the engine is a stand-in."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
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
    http: httpx.Client

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
def production(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Production]:
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
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process(command, env=environment) as api, httpx.Client(base_url=url, timeout=20) as http:
        wait_ready(url, api)
        yield Production(environment, tmp_path, redis_url, http)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


def test_submit_cancel_and_kills(production: Production) -> None:
    http = production.http
    with production.worker() as worker:
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


def test_a_worker_that_is_stopped_hands_over(production: Production) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(production.worker())
        job = production.submit(steps=100, sleep=0.05)
        production.in_scene(job["id"])
        stack.enter_context(production.worker())
        first.terminate()
        assert first.wait(15) == 0, first.log.read_text()[-3000:]  # type: ignore[attr-defined]
        done = job_when(production.http, job["id"], "succeeded", seconds=40)
        assert done["attempt"] == 2
        assert "attempt 1: its worker stopped and gave it back" in done["warnings"]


def test_lost_and_doubled_messages(production: Production) -> None:
    celery = make_celery(production.redis_url)
    with redis.Redis.from_url(production.redis_url) as broker:
        early = production.submit(steps=4)
        broker.flushall()  # the message is lost before any worker is there
        with production.worker(), production.worker():
            job_when(production.http, early["id"], "succeeded")
            job = production.submit(steps=30, sleep=0.05)
            for _ in range(10):
                celery.send_task(TASK, args=[job["id"]], queue=QUEUE)
            production.in_scene(job["id"])
            broker.flushall()
            later = production.submit(steps=4)
            broker.flushall()
            assert job_when(production.http, job["id"], "succeeded")["attempt"] == 1
            assert job_when(production.http, later["id"], "succeeded")["attempt"] == 1
            starts = list(production.run(job["id"]).joinpath("starts").glob("*.json"))
            assert [path.name for path in starts] == ["1.json"]
    celery.close()


def test_without_a_broker_jobs_are_taken_and_run(production: Production) -> None:
    away = production.environment | {"DPDY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process(command, env=away) as api, httpx.Client(base_url=url, timeout=20) as http:
        wait_ready(url, api)
        job = submit(http, upload(http), steer(steps=4))
        production.environment = away
        with production.worker():
            job_when(http, job["id"], "succeeded")
