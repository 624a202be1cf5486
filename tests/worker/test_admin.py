"""`dpdy admin drain` and `gc`, on the database of a service that runs."""

import json
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.db.models import Job, Upload, Worker, now
from dpdy_core.command import run_command
from tests.harness import Harness, steer
from tests.servers import wait_for
from worker.admin import app
from worker.sweep import sweep


class Admin:
    """The command, with the variables of the service."""

    def __init__(self, service: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        monkeypatch.setenv("DPDY_DATA", str(service.settings.data))
        monkeypatch.setenv("DPDY_MIN_FREE_BYTES", "0")

    def __call__(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        self._capsys.readouterr()
        assert run_command(app, ["admin", *arguments, "--json"], "dpdy") == code
        out = self._capsys.readouterr().out
        items: list[dict[str, Any]] = json.loads(out)["items"] if out.startswith('{\n  "items"') else []
        return items


@pytest.fixture
def admin(service: Harness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Admin:
    return Admin(service, capsys, monkeypatch)


@pytest.fixture
def there(service: Harness) -> None:
    """The row that a station would write for the harness' runner."""
    with service.sessions.begin() as session:
        session.add(Worker(id="test-worker", version="1", devices=[], started_at=now(), seen_at=now()))


def state(rows: list[dict[str, Any]]) -> tuple[str, str | None]:
    (row,) = rows
    return row["state"], row["job"]


@pytest.mark.usefixtures("there")
def test_a_drained_worker_takes_no_job_until_it_is_told_to(service: Harness, admin: Admin) -> None:
    job = service.submit()
    assert state(admin("drain")) == ("idle", None)
    assert state(admin("drain", "test-worker", "--wait", "1")) == ("drained", None)
    assert service.http.get("/v1/info").json()["workers"][0]["drain"] == "finish"
    assert not service.runner.run_next()
    assert not service.runner.run(job["id"])  # not even with the job in its hand
    assert state(admin("drain", "--all", "--undo")) == ("idle", None)
    assert service.runner.run_next()
    assert service.job(job["id"])["state"] == "succeeded"


@pytest.mark.usefixtures("there")
def test_a_draining_worker_finishes_its_job_or_gives_it_back(service: Harness, admin: Admin) -> None:
    job = service.submit(steer(steps=600, sleep=0.05))
    running = threading.Thread(target=service.runner.run, args=(job["id"],))
    running.start()
    wait_for(lambda: service.job(job["id"])["progress"] > 0.3)
    assert state(admin("drain", "--all")) == ("draining", job["id"])
    admin("drain", "--all", "--wait", "0.2", code=4)
    assert service.job(job["id"])["state"] == "running"
    assert state(admin("drain", "--all", "--now", "--wait", "10")) == ("drained", None)
    running.join(10)
    back = service.job(job["id"])
    assert (back["state"], back["attempt"]) == ("queued", 2)
    assert not service.runner.run_next()


def test_what_cannot_be_drained_is_named(admin: Admin) -> None:
    admin("drain", "nobody", code=3)
    admin("drain", "nobody", "--all", code=2)


def test_a_database_that_is_not_there_is_named(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DPDY_DATA", str(tmp_path / "elsewhere"))
    assert run_command(app, ["admin", "gc"], "dpdy") == 3
    assert "elsewhere" in capsys.readouterr().err
    assert admin


def age(service: Harness, job_id: str, days: float) -> None:
    with service.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=now() - timedelta(days=days)))


def test_gc_lists_and_then_removes_waste_and_nothing_else(
    service: Harness, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = service.runner.files
    old, young, waiting = service.finished(), service.finished(), service.submit()
    age(service, old["id"], 8)
    monkeypatch.setenv("DPDY_RETENTION_DAYS", "7")
    lost = service.upload()
    with service.sessions.begin() as session:
        session.get_one(Upload, lost).expires_at = now() - timedelta(hours=1)
    orphans = [files.root / "jobs" / "job-unknown", files.uploads / "upl-unknown.mp4", files.root / ".check.x"]
    for orphan in orphans:
        (orphan if orphan.suffix else orphan / "run").mkdir(parents=True)
        os.utime(orphan, (0, 0))
    fresh = files.root / "jobs" / "job-about-to-be"
    fresh.mkdir()
    wanted = {old["id"], lost, *(str(orphan.relative_to(files.root)) for orphan in orphans)}
    assert {row["id"] for row in admin("gc", "--dry-run")} == wanted
    assert files.job(old["id"]).exists()
    assert {row["id"] for row in admin("gc")} == wanted
    assert admin("gc") == []
    assert service.http.get(f"/v1/jobs/{old['id']}").json()["receipt"]["kinds"]["render"]["count"] == 1
    assert [orphan for orphan in orphans if orphan.exists()] == []
    assert fresh.exists()
    assert service.job(young["id"])["state"] == "succeeded"
    assert service.runner.run(waiting["id"])


def test_jobs_go_when_their_time_is_over_unless_they_go_again(service: Harness) -> None:
    service.http.app.state.service.__dict__["settings"] = settings = service.settings.model_copy(  # type: ignore[attr-defined]
        update={"retention_days": 7.0}
    )
    kept, gone, again = service.finished(), service.finished(fail=3), service.finished(fail=3)
    for job in (kept, gone, again):
        age(service, job["id"], 6.9 if job is kept else 7.1)
    expires_at = service.job(kept["id"])["expires_at"]
    assert expires_at is not None
    assert service.http.get("/v1/info").json()["limits"]["retention_days"] == 7
    service.http.post(f"/v1/jobs/{again['id']}/retry")
    assert service.job(again["id"])["expires_at"] is None
    sweep(service.sessions, service.runner.queue, service.runner.files, settings)
    assert service.http.get(f"/v1/jobs/{gone['id']}").status_code == 410
    assert not service.runner.files.job(gone["id"]).exists()
    assert (service.job(kept["id"])["state"], service.job(again["id"])["state"]) == ("succeeded", "queued")
    assert service.runner.run(again["id"])
