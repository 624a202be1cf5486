import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from api.db import queries
from api.db.models import Upload
from api.jobs import service as jobs
from api.jobs.faults import CRASHED
from api.settings import Settings
from dpdy_core.rundir import RunDir, read_json
from tests.harness import Document, Harness, harness, steer
from tests.servers import wait_for
from worker import runner

LONG = {"steps": 400, "sleep": 0.05}


@contextmanager
def running(service: Harness, **words: float) -> Iterator[tuple[Document, threading.Thread]]:
    """A job in its `scene` stage, run by a thread."""
    job = service.submit(steer(**words))
    thread = threading.Thread(target=service.runner.run, args=(job["id"],))
    thread.start()
    try:
        wait_for(lambda: service.job(job["id"])["stage"] == "scene" and starts(service, job["id"]))
        yield job, thread
    finally:
        service.runner.stop()
        thread.join(20)
        assert not thread.is_alive()


def starts(service: Harness, job_id: str) -> dict[int, Document]:
    folder = service.runner.files.run(job_id) / "starts"
    return {int(path.stem): read_json(path) for path in sorted(folder.glob("[0-9]*.json"))}


def states_of(service: Harness, job_id: str) -> list[str]:
    with service.sessions() as session:
        return [event.data["state"] for event in queries.events(session, job_id, 0) if event.kind == "state"]


def test_a_good_run(service: Harness) -> None:
    job = service.finished(steps=4)
    assert (job["state"], job["progress"], job["attempt"], job["problem"]) == ("succeeded", 1.0, 1, None)
    assert {stage["state"] for stage in job["stages"]} == {"done"}
    scene = next(stage for stage in job["stages"] if stage["name"] == "scene")
    assert (scene["step"], scene["total"]) == (4, 4)
    assert job["metrics"] == {"protocol": "plain", "split": "test", "mean": {"psnr": 20.0}, "notes": []}
    assert job["warnings"] == ["scene: the stand-in computes nothing"]
    assert job["started_at"] <= job["heartbeat_at"] <= job["finished_at"]
    config, source = RunDir(service.runner.files.run(job["id"])).read_config()
    assert config.preset == "smoke"
    assert source.read_bytes() == b"video"
    assert not service.runner.run(job["id"])  # a doubled message does nothing


def test_an_expected_failure_keeps_its_problem(service: Harness) -> None:
    job = service.finished(fail=3)
    assert job["state"] == "failed"
    assert job["problem"]["detail"] == "no parallax"
    assert (job["problem"]["type"], job["problem"]["remedy"], job["problem"]["retryable"]) == (
        "bad-input",
        "move",
        False,
    )
    assert next(stage for stage in job["stages"] if stage["name"] == "scene")["state"] == "failed"
    assert states_of(service, job["id"]) == ["queued", "running", "failed"]


def test_a_crash_resumes_and_too_many_fail(service: Harness) -> None:
    job = service.submit(steer(crash=1, steps=5))
    assert service.runner.run(job["id"])
    again = service.job(job["id"])
    assert (again["state"], again["attempt"]) == ("queued", 2)
    assert "SIGKILL" in again["warnings"][-1]
    assert service.runner.run(job["id"])
    assert service.job(job["id"])["state"] == "succeeded"
    assert [start["first"] for start in starts(service, job["id"]).values()] == [0, 5]
    poison = service.submit(steer(crash=99))
    while service.runner.run(poison["id"]):
        pass
    dead = service.job(poison["id"])
    assert (dead["state"], dead["problem"]["type"], dead["attempt"]) == ("failed", "attempts-exhausted", 3)
    retried = service.http.post(f"/v1/jobs/{poison['id']}/retry").json()
    assert (retried["state"], retried["attempt"], retried["problem"]) == ("queued", 4, None)


@pytest.mark.parametrize("deaf", [0, 1])
def test_cancel_frees_the_device_in_time_and_retry_goes_on(service: Harness, deaf: int) -> None:
    with running(service, **LONG, deaf=deaf, orphan=1) as (job, thread):
        url = f"/v1/jobs/{job['id']}"
        wait_for(lambda: (service.job(job["id"])["stages"][5]["step"] or 0) >= 3)
        pid = starts(service, job["id"])[1]["pid"]
        asked = time.monotonic()
        assert service.http.post(f"{url}/cancel").json()["state"] == "cancelling"
        thread.join(10)
        assert time.monotonic() - asked < 10
        job = service.job(job["id"])
        assert (job["state"], job["problem"]) == ("cancelled", None)
        orphan = read_json(service.runner.files.run(job["id"]) / "orphan.json")
        wait_for(lambda: not any(Path(f"/proc/{p}/exe").exists() for p in (pid, orphan)), 5)
        assert states_of(service, job["id"]) == ["queued", "running", "cancelling", "cancelled"]
        if not deaf:
            service.http.post(f"{url}/retry")
            second = threading.Thread(target=service.runner.run, args=(job["id"],))
            second.start()
            wait_for(lambda: len(starts(service, job["id"])) == 2)
            assert starts(service, job["id"])[2]["first"] >= 3
            service.runner.stop()
            second.join(10)


def test_a_stopped_worker_gives_the_job_back_for_free(service: Harness) -> None:
    with running(service, **LONG) as (job, thread):
        service.runner.stop()
        thread.join(10)
    back = service.job(job["id"])
    assert (back["state"], back["attempt"]) == ("queued", 2)
    with service.sessions() as session:
        assert [(a.number, a.outcome) for a in queries.attempts(session, job["id"])] == [(1, "yielded")]


def test_delete_while_it_runs(service: Harness) -> None:
    with running(service, **LONG) as (job, thread):
        answer = service.http.delete(f"/v1/jobs/{job['id']}")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
        thread.join(10)
        assert service.http.get(f"/v1/jobs/{job['id']}").status_code == 410
        assert not service.runner.files.job(job["id"]).exists()


def test_a_database_that_is_away_at_the_start_is_not_the_job_s_fault(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[str]:
        raise OperationalError("SELECT", {}, Exception("no connection"))

    job = service.submit()
    with monkeypatch.context() as broken:
        broken.setattr(runner, "prepare", away)
        for _ in range(service.settings.max_attempts + 1):
            assert service.runner.run(job["id"])
    with service.sessions() as session:
        outcomes = [attempt.outcome for attempt in queries.attempts(session, job["id"])]
    assert outcomes == ["interrupted"] * 4
    assert service.runner.run(job["id"])
    assert service.job(job["id"])["state"] == "succeeded"


def test_run_deadline(service: Harness) -> None:
    job = service.submit(steer(**LONG), run_deadline=1.5)
    assert service.runner.run(job["id"])
    late = service.job(job["id"])
    assert (late["state"], late["problem"]["type"]) == ("failed", "run-deadline")


def test_a_zombie_notices_and_writes_nothing(service: Harness) -> None:
    with running(service, **LONG) as (job, thread):
        pid = starts(service, job["id"])[1]["pid"]
        with service.sessions.begin() as session:
            assert jobs.give_back(session, job["id"], 1, CRASHED, "taken", service.settings) == "queued"
        version = service.sessions().get(type(queries.job(service.sessions(), job["id"])), job["id"]).version
        thread.join(10)
        assert not thread.is_alive()
        assert not Path(f"/proc/{pid}/exe").exists()
        with service.sessions() as session:
            assert queries.job_version(session, job["id"]) == (version, "queued")


def test_an_upload_that_vanished_fails_at_once(service: Harness) -> None:
    job = service.submit()
    with service.sessions.begin() as session:
        session.get_one(Upload, job["upload_id"]).deleted_at = session.get_one(Upload, job["upload_id"]).created_at
    assert service.runner.run(job["id"])
    dead = service.job(job["id"])
    assert (dead["state"], dead["problem"]["type"]) == ("failed", "bad-input")
    assert "is gone" in dead["problem"]["detail"]


def test_one_job_at_a_time(service: Harness) -> None:
    other = service.submit()
    with running(service, **LONG):
        assert not service.runner.run(other["id"])
        assert not service.runner.run_next()
        assert service.job(other["id"])["state"] == "queued"


def test_progress_never_goes_back(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(progress_seconds=0.01)) as service:
        job = service.finished(steps=20, sleep=0.02)
        with service.sessions() as session:
            progress = [event.data["progress"] for event in queries.events(session, job["id"], 0)]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_data_may_lie_in_a_hidden_folder(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    with harness(make_settings(data=tmp_path / ".dpdy")) as service:
        job = service.finished()
        paths = [item["path"] for item in service.http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]]
    assert "renders/orbit.mp4" in paths
    assert not any(path.startswith(".") for path in paths)


def test_a_prior_of_the_operator_is_used(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(prior="/models/ldm3d")) as service:
        job = service.submit()
        own = service.submit({"prior.model": "someone/else"}, upload_id=job["upload_id"])
        for identity, model in ((job["id"], "/models/ldm3d"), (own["id"], "someone/else")):
            service.runner.run(identity)
            config = json.loads((service.runner.files.run(identity) / "config.json").read_text())
            assert config["settings"]["prior"]["model"] == model
