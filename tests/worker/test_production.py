"""PostgreSQL, Redis, `dpdy worker` and uvicorn as real processes; only the engine is a stand-in."""

import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from api.jobs.queue import QUEUE, TASK, make_celery
from tests.harness import job_when, steer, submit, upload
from tests.production import LONG, Production, gone, make_production
from tests.servers import free_port


@pytest.fixture
def production(postgres_url: str, redis_url: str, tmp_path: Path) -> Production:
    return make_production(postgres_url, redis_url, tmp_path)


def test_submit_and_cancel(production: Production) -> None:
    """Kills of engines and workers are in tests/faults/test_drill.py."""
    with production.api() as http, production.worker():
        assert http.get("/readyz").status_code == 200
        done = job_when(http, production.submit(steps=4)["id"], "succeeded")
        assert done["progress"] == 1.0

        job = production.submit(**LONG)
        pid = production.in_scene(job["id"])
        http.post(f"/v1/jobs/{job['id']}/cancel")
        job_when(http, job["id"], "cancelled", seconds=10)
        assert gone(pid)


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
        moved = production.submit(steps=60, sleep=0.05)
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
        job = submit(http, upload(http), steer(steps=40, sleep=0.05))
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
