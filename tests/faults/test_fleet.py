"""Faults of workers, broker and API: real processes, PostgreSQL and Redis; the engine is `worker.standin`."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis

from api.jobs.queue import QUEUE, TASK, make_celery
from tests.harness import Document, job_when, steer, submit, upload
from tests.production import Production, gone
from tests.servers import free_port, redis_server, wait_for

ODD = [sys.executable, "-m", "tests.faults.odd_worker"]


def body(http: httpx.Client, name: str = "one") -> Document:
    return {"upload_id": upload(http), "preset": "smoke", "settings": steer(steps=3), "name": name}


def attempts_started(fleet: Production, job_id: str) -> list[str]:
    return sorted(path.stem for path in fleet.run(job_id).joinpath("starts").glob("*.json"))


@pytest.mark.faults
@pytest.mark.fault("F5")
def test_a_frozen_worker_comes_back_as_a_zombie(fleet: Production) -> None:
    """SIGSTOP of a worker past its lease, then SIGCONT: its child is gone first, another owns the job."""
    with fleet.api() as http, fleet.worker() as frozen:
        job = fleet.submit(steps=90, sleep=0.05)
        child = fleet.in_scene(job["id"])
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            with fleet.worker():
                wait_for(lambda: http.get(f"/v1/jobs/{job['id']}").json()["attempt"] == 2, 20)
                assert gone(child)  # before anybody else could start
                fleet.in_scene(job["id"], attempt=2)
                os.kill(frozen.pid, signal.SIGCONT)
                done = job_when(http, job["id"], "succeeded", seconds=30)
                assert done["attempt"] == 2
                assert fleet.start(job["id"], 2)["first"] >= 3
                assert attempts_started(fleet, job["id"]) == ["1", "2"]
                log = frozen.log.read_text  # type: ignore[attr-defined]
                wait_for(lambda: "another worker has taken over" in log(), 10)
        finally:
            os.kill(frozen.pid, signal.SIGCONT)


@pytest.mark.fault("F16")
@pytest.mark.fault("F26")
def test_an_api_killed_between_commit_and_message(fleet: Production) -> None:
    """The API is killed between the commit of a job and its message: the job runs, and a repeat finds the same one."""
    with fleet.api("tests.faults.dying_api:create_app") as http:
        wanted = body(http)
        with pytest.raises(httpx.TransportError):
            http.post("/v1/jobs", json=wanted, headers={"Idempotency-Key": "k"})
    with redis.Redis.from_url(fleet.redis_url) as broker:
        assert broker.llen(QUEUE) == 0
    with fleet.api() as http, fleet.worker():
        (job,) = http.get("/v1/jobs").json()["items"]
        job_when(http, job["id"], "succeeded")
        again = http.post("/v1/jobs", json=wanted, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["id"]) == (202, job["id"])


@pytest.mark.fault("F26")
def test_one_key_fifty_times_at_once(fleet: Production) -> None:
    """The same Idempotency-Key 50 times in parallel is one job; with another body it is refused."""
    with fleet.api() as http:
        wanted = body(http)

        def post(_: int) -> httpx.Response:
            return http.post("/v1/jobs", json=wanted, headers={"Idempotency-Key": "same"})

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(post, range(50)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len(http.get("/v1/jobs").json()["items"]) == 1
        other = http.post("/v1/jobs", json={**wanted, "name": "two"}, headers={"Idempotency-Key": "same"})
        assert other.status_code == 422


@pytest.mark.faults
@pytest.mark.fault("F31")
def test_clocks_that_are_off(fleet: Production) -> None:
    """One worker's clock 10 minutes ahead, another's behind: nothing is stolen, all runs once."""
    with fleet.api() as http, ExitStack() as stack:
        for seconds in (600, -600):
            stack.enter_context(fleet.worker([*ODD, f"clock={seconds}"]))
        jobs = [fleet.submit(steps=60, sleep=0.05) for _ in range(4)]
        for job in jobs:
            assert job_when(http, job["id"], "succeeded", seconds=60)["attempt"] == 1
            assert attempts_started(fleet, job["id"]) == ["1"]


@pytest.mark.faults
@pytest.mark.fault("F11")
def test_a_doorbell_rung_ten_times_for_four_workers(fleet: Production) -> None:
    """The same message ten times to four workers: one claim."""
    celery = make_celery(fleet.redis_url)
    with fleet.api() as http, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(fleet.worker())
        job = fleet.submit(steps=40, sleep=0.05)
        for _ in range(10):
            celery.send_task(TASK, args=[job["id"]], queue=QUEUE)
        assert job_when(http, job["id"], "succeeded", seconds=40)["attempt"] == 1
        assert attempts_started(fleet, job["id"]) == ["1"]
    celery.close()


@pytest.mark.faults
@pytest.mark.fault("F12")
def test_an_impatient_broker(fleet: Production) -> None:
    """Redis' visibility timeout of 2 s and a longer job: still one run."""
    with fleet.api() as http, fleet.worker([*ODD, "visibility=2"]), fleet.worker([*ODD, "visibility=2"]):
        job = fleet.submit(steps=160, sleep=0.05)
        assert job_when(http, job["id"], "succeeded", seconds=60)["attempt"] == 1
        assert attempts_started(fleet, job["id"]) == ["1"]


@pytest.mark.faults
@pytest.mark.fault("F8")
@pytest.mark.fault("F9")
@pytest.mark.fault("F10")
def test_redis_away_wiped_and_back(fleet: Production) -> None:
    """Redis stopped, wiped and restarted: running jobs untouched, submits 202, queued ones start within a poll."""
    port = free_port()
    fleet.environment["DPDY_BROKER_URL"] = f"redis://127.0.0.1:{port}/0"
    with ExitStack() as stack:
        broker = stack.enter_context(ExitStack())
        broker.enter_context(redis_server(port))
        http = stack.enter_context(fleet.api())
        stack.enter_context(fleet.worker())
        running = fleet.submit(steps=60, sleep=0.05)
        fleet.in_scene(running["id"])
        broker.close()  # away, and its memory with it
        waiting = [fleet.submit(steps=3) for _ in range(3)]
        assert job_when(http, running["id"], "succeeded", seconds=40)["attempt"] == 1
        for job in waiting:
            assert job_when(http, job["id"], "succeeded", seconds=20)["attempt"] == 1
        stack.enter_context(redis_server(port))
        time.sleep(3)
        idle = fleet.submit(steps=3)  # the known fault: alive, but deaf after the broker came back
        assert job_when(http, idle["id"], "succeeded", seconds=15)["attempt"] == 1


@pytest.mark.faults
@pytest.mark.fault("F2")
def test_a_worker_killed_outright_with_the_default_clocks(fleet: Production) -> None:
    """SIGKILL of a whole worker at the default lease: its child is gone, another goes on within 90 s."""
    for name in ("LEASE", "HEARTBEAT", "SWEEP", "POLL", "PROGRESS"):
        del fleet.environment[f"DPDY_{name}_SECONDS"]
    with fleet.api() as http, fleet.worker() as killed:
        job = fleet.submit(steps=200, sleep=0.05)
        child = fleet.in_scene(job["id"])
        with fleet.worker():
            killed.kill()
            at = time.monotonic()
            wait_for(lambda: gone(child), 10)
            wait_for(lambda: http.get(f"/v1/jobs/{job['id']}").json()["attempt"] == 2, 90)
            fleet.in_scene(job["id"], attempt=2, step=1)
            assert time.monotonic() - at < 90
            assert job_when(http, job["id"], "succeeded", seconds=60)["attempt"] == 2
            assert fleet.start(job["id"], 2)["first"] >= 3


@pytest.mark.faults
@pytest.mark.fault("F3")
def test_a_deploy(fleet: Production) -> None:
    """SIGTERM of a worker: the child checkpoints and yields, the attempt is free, another worker goes on."""
    fleet.environment["DPDY_MAX_ATTEMPTS"] = "1"
    with fleet.api() as http, ExitStack() as stack:
        job = submit(http, upload(http), steer(steps=150, sleep=0.05))
        for number in range(1, 4):
            with fleet.worker() as worker:
                fleet.in_scene(job["id"], attempt=number, step=1)
                worker.terminate()
                assert worker.wait(20) == 0
        stack.enter_context(fleet.worker())
        assert job_when(http, job["id"], "succeeded", seconds=40)["attempt"] == 4
        firsts = [fleet.start(job["id"], number)["first"] for number in range(1, 5)]
        assert firsts == sorted(set(firsts))


@pytest.mark.faults
@pytest.mark.fault("F22")
def test_a_worker_without_its_gpu_ends_to_be_restarted(fleet: Production, tmp_path: Path) -> None:
    """The driver stops answering under an idle worker: it claims nothing and ends, another takes the job."""
    absent, program = tmp_path / "absent", tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ -e {absent} ] && exit 255\necho '0, GPU-{tmp_path.name}, Stand-in GPU, 24576'\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    with fleet.api() as http:
        with fleet.worker(variables={"PATH": path}) as worker:
            assert http.get("/v1/info").json()["devices"][0]["name"] == "Stand-in GPU"
            absent.touch()
            job = fleet.submit(steps=3)
            assert worker.wait(30) == 4
        assert http.get(f"/v1/jobs/{job['id']}").json()["attempt"] == 1
        with fleet.worker():
            assert job_when(http, job["id"], "succeeded")["attempt"] == 1
