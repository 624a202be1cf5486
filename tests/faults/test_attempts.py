"""Faults of one attempt: a real child process, real signals, SQLite. The engine is `worker.standin`."""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from api.db import queries
from api.db.models import Job, now
from api.jobs import service
from api.settings import Settings
from dpdy_core.rundir import read_json
from tests.faults.conftest import violations
from tests.harness import Document, Harness, harness, steer
from tests.production import gone
from tests.servers import wait_for
from worker import devices
from worker.runner import Runner
from worker.sweep import sweep

LONG = {"steps": 400, "sleep": 0.05}
SMI = """#!/bin/sh
[ -e {absent} ] && {{ echo "Failed to initialize NVML: Unknown Error"; exit 255; }}
echo "0, GPU-stand-in, Stand-in GPU, 24576"
"""


def outcomes(service: Harness, job_id: str) -> list[str | None]:
    with service.sessions() as session:
        return [attempt.outcome for attempt in queries.attempts(session, job_id)]


def first_steps(service: Harness, job_id: str) -> list[int]:
    """The checkpoint that each attempt started from."""
    folder = service.runner.files.run(job_id) / "starts"
    return [read_json(path)["first"] for path in sorted(folder.glob("*.json"))]


def run_all(service: Harness) -> None:
    while service.runner.run_next():
        pass


@contextmanager
def running(service: Harness, **words: float) -> Iterator[tuple[Document, threading.Thread, int]]:
    """A job some steps into `scene`, the thread that runs it and its child."""
    job = service.submit(steer(**words))
    thread = threading.Thread(target=service.runner.run, args=(job["id"],))
    thread.start()
    try:
        wait_for(lambda: (service.job(job["id"])["stages"][5]["step"] or 0) >= 3)
        pid = read_json(service.runner.files.run(job["id"]) / "starts" / "1.json")["pid"]
        yield job, thread, pid
    finally:
        service.runner.stop()
        thread.join(20)
        service.runner.stopping.clear()


@pytest.fixture
def quick_stall(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(stall_seconds=3, grace_seconds=0.5)) as service:
        yield service
        assert violations(service) == []


@pytest.mark.fault("F1")
def test_a_killed_child_is_noticed_and_resumed(alone: Harness) -> None:
    """SIGKILL of the child mid-optimise: seen within 2 s, attempt 2 goes on from the last checkpoint."""
    with running(alone, steps=40, sleep=0.05) as (job, thread, pid):
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        thread.join(5)
        assert time.monotonic() - killed < 2
    assert alone.job(job["id"])["state"] == "queued"
    run_all(alone)
    done = alone.job(job["id"])
    assert (done["state"], done["attempt"]) == ("succeeded", 2)
    assert first_steps(alone, job["id"])[1] >= 3


@pytest.mark.fault("F4")
def test_a_half_written_checkpoint_is_ignored(alone: Harness) -> None:
    """SIGTERM, then SIGKILL before the checkpoint is finished: the half of it is ignored, the previous one is used."""
    with running(alone, **LONG, slowsave=60) as (job, thread, _):
        alone.runner.stop()
        thread.join(20)
    half = alone.runner.files.run(job["id"]) / "stages" / ".scene.partial.partial.json"
    assert half.exists()
    assert outcomes(alone, job["id"]) == ["yielded"]
    kept = read_json(half.with_name("scene.partial.json"))["step"]
    config = alone.runner.files.run(job["id"]) / "config.json"
    config.write_text(config.read_text().replace("steps=400", f"steps={kept + 3}"))  # ends soon
    run_all(alone)
    assert alone.job(job["id"])["state"] == "succeeded"
    assert first_steps(alone, job["id"])[1] == kept >= 3


@pytest.mark.fault("F21")
def test_out_of_memory_has_one_more_chance_with_less(alone: Harness) -> None:
    """Out of memory at step N: one retry that saves memory, said so; then `out-of-memory`; the next job runs."""
    once, twice, after = (alone.submit(steer(oom=n)) for n in (1, 2, 0))
    run_all(alone)
    done, failed = alone.job(once["id"]), alone.job(twice["id"])
    assert (done["state"], outcomes(alone, once["id"])) == ("succeeded", ["out-of-memory", "succeeded"])
    assert any("saves memory: render.chunk halved" in warning for warning in done["warnings"])
    chunks = [
        read_json(alone.runner.files.run(j["id"]) / "config.json")["settings"]["render"]["chunk"] for j in (once, after)
    ]
    assert chunks[0] * 2 == chunks[1]
    assert (failed["state"], failed["problem"]["type"], failed["attempt"]) == ("failed", "out-of-memory", 2)
    assert failed["problem"]["retryable"]
    assert alone.job(after["id"])["attempt"] == 1
    assert alone.http.post(f"/v1/jobs/{twice['id']}/retry").status_code == 202  # the user's retry counts anew
    run_all(alone)
    assert alone.job(twice["id"])["state"] == "succeeded"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi that names one GPU, until the file is there that this returns."""
    absent = tmp_path / "absent"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI.format(absent=absent))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(devices, "LOCKS", tmp_path)
    return absent


@pytest.mark.fault("F22")
def test_a_lost_gpu_is_not_the_users_fault(gpu: Path, make_settings: Callable[..., Settings]) -> None:
    """The GPU vanishes: before a claim nothing is claimed; mid-job the attempt is free and goes on elsewhere."""
    with harness(make_settings(max_attempts=1)) as service:
        job = service.submit(steer(gpulost=2))
        gpu.touch()
        assert not service.runner.run_next()
        assert service.runner.gpus_gone
        assert "GPUs are gone" in service.runner.unfit
        assert service.job(job["id"])["state"] == "queued"
        gpu.unlink()
        run_all(service)
        done = service.job(job["id"])
        assert (done["state"], outcomes(service, job["id"])) == ("succeeded", ["gpu-lost", "gpu-lost", "succeeded"])
        assert violations(service) == []


@pytest.mark.fault("F22")
def test_one_job_per_gpu(gpu: Path, make_settings: Callable[..., Settings]) -> None:
    """Two workers and one GPU: the second waits, also while the child of a killed worker still lives."""
    assert not gpu.exists()
    with harness(make_settings()) as service:
        other = Runner(service.settings, service.sessions, service.runner.queue, "other")
        waiting = service.submit()
        with running(service, **LONG) as (job, _, pid):
            environment = Path(f"/proc/{pid}/environ").read_text()
            assert "CUDA_VISIBLE_DEVICES=GPU-stand-in" in environment
            assert not other.run(waiting["id"])
            assert service.job(waiting["id"])["state"] == "queued"
        assert other.run(waiting["id"])
        assert service.job(waiting["id"])["state"] == "succeeded"
        service.http.post(f"/v1/jobs/{job['id']}/cancel")
        assert violations(service) == []


@pytest.mark.fault("F23")
def test_a_hang_is_not_life(quick_stall: Harness) -> None:
    """The engine hangs but lives: the stall clock fires, the child is killed and resumed; twice is `stalled`."""
    once, twice = (quick_stall.submit(steer(steps=6, hang=n)) for n in (1, 2))
    run_all(quick_stall)
    assert outcomes(quick_stall, once["id"]) == ["stalled", "succeeded"]
    assert first_steps(quick_stall, once["id"]) == [0, 2]
    failed = quick_stall.job(twice["id"])
    assert (failed["state"], failed["problem"]["type"], failed["attempt"]) == ("failed", "stalled", 2)
    log = quick_stall.http.get(f"/v1/jobs/{once['id']}/logs").json()["items"]
    assert any("most recent call first" in line["text"] for line in log)


@pytest.mark.fault("F24")
def test_poison_ends_and_the_queue_moves_on(alone: Harness) -> None:
    """Input that crashes the child every time: given up after 3 attempts, and the jobs behind it run."""
    poison, behind = alone.submit(steer(crash=99)), alone.submit()
    run_all(alone)
    dead = alone.job(poison["id"])
    assert (dead["state"], dead["problem"]["type"], dead["attempt"]) == ("failed", "attempts-exhausted", 3)
    assert "SIGKILL" in dead["problem"]["detail"]
    assert alone.job(behind["id"])["state"] == "succeeded"


@pytest.mark.fault("F25")
@pytest.mark.parametrize("moment", ["queued", "running", "deaf", "saving"])
def test_cancel_in_any_state(alone: Harness, moment: str) -> None:
    """Cancel while queued, in a stage, of a deaf child, during a checkpoint, twice, after the end: within 10 s."""
    if moment == "queued":
        job = alone.submit()
        for _ in range(2):
            assert alone.http.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
        run_all(alone)
        assert alone.job(job["id"])["state"] == "cancelled"
        assert outcomes(alone, job["id"]) == []
        return
    with running(alone, **LONG, deaf=int(moment == "deaf"), slowsave=60 * (moment == "saving")) as (job, thread, pid):
        asked = time.monotonic()
        for _ in range(2):
            assert alone.http.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelling"
        wait_for(lambda: gone(pid), 10)
        thread.join(10)
        assert time.monotonic() - asked < 10
    assert alone.job(job["id"])["state"] == "cancelled"
    assert alone.http.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert outcomes(alone, job["id"]) == ["cancelled"]


@pytest.mark.fault("F25")
def test_cancel_at_the_instant_of_success(alone: Harness) -> None:
    """Cancel at the same instant as success: one terminal state, one completion."""
    for steps in range(4):
        job = alone.submit(steer(steps=steps + 1, sleep=0.05))
        with ThreadPoolExecutor(2) as pool:
            run = pool.submit(alone.runner.run, job["id"])
            time.sleep(0.35 + 0.08 * steps)
            answer = pool.submit(alone.http.post, f"/v1/jobs/{job['id']}/cancel").result()
            assert run.result() or answer.json()["state"] == "cancelled"
        assert answer.status_code in (202, 409)
        assert alone.job(job["id"])["state"] in ("succeeded", "cancelled")


@pytest.mark.fault("F30")
def test_a_job_is_deleted_behind_a_lost_attempt(alone: Harness) -> None:
    """A job is deleted while a worker that lost it still has a frozen child: what is written later goes, too."""
    with running(alone, **LONG) as (job, thread, pid):
        os.kill(pid, signal.SIGSTOP)
        with alone.sessions.begin() as session:
            session.get_one(Job, job["id"]).lease_expires_at = now() - timedelta(seconds=1)
            assert service.reap(session, job["id"], 1, alone.settings) == "queued"
        assert alone.http.delete(f"/v1/jobs/{job['id']}").status_code == 202
        thread.join(10)
        assert gone(pid)
    stage = alone.runner.files.run(job["id"]) / "stages" / "scene.partial.json"
    stage.parent.mkdir(parents=True, exist_ok=True)
    stage.write_text("{}")  # as an engine does that nobody could stop, when it goes on at last
    assert violations(alone) != []
    sweep(alone.sessions, alone.runner.queue, alone.runner.files, alone.settings)
    assert violations(alone) == []
    assert alone.http.get(f"/v1/jobs/{job['id']}").status_code == 410


@pytest.mark.fault("F5")
def test_a_run_still_in_use_is_tried_again_later(alone: Harness) -> None:
    """A run folder that the child of a lost worker still holds: `run-busy`, free, and tried again."""
    job = alone.submit()
    lock = alone.runner.files.run(job["id"]) / ".lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for _ in range(4):  # more often than a job may crash
            assert alone.runner.run(job["id"])
    run_all(alone)
    assert alone.job(job["id"])["state"] == "succeeded"
    assert outcomes(alone, job["id"]) == ["run-busy"] * 4 + ["succeeded"]
