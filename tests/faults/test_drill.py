"""`dpdy admin drill` against real PostgreSQL, Redis and S3, and beside a service with jobs of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, make_url, select

from api import keys
from api.db.models import DRILL, ApiKey, Base, IdempotencyKey, Job, Owned, Upload
from api.db.session import Sessions, make_engine, make_sessions
from api.settings import Settings
from dpdy_core.command import run_command
from tests.harness import Harness, job_when, make_key, steer
from tests.production import Production, gone, make_production
from tests.servers import free_port
from worker.admin import app
from worker.drill import checks, run
from worker.drill.site import Failed, site

ALL = {check.__name__.replace("_", " ") for check, _ in checks.CHECKS}
COUNTERS = {"tallies", "workers"}  # what rises with time, whoever does something


def drill(environment: dict[str, str], code: int = 0) -> dict[str, dict[str, Any]]:
    """The results by check, of the command as a process."""
    command = [sys.executable, "-m", "dpdy", "admin", "drill", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return {row["check"]: row for row in json.loads(done.stdout)["items"]}


@contextmanager
def database(environment: dict[str, str]) -> Iterator[Sessions]:
    engine = make_engine(make_url(environment["DPDY_DATABASE_URL"]))
    yield make_sessions(engine)
    engine.dispose()


def counts(sessions: Sessions) -> dict[str, int]:
    with sessions() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name not in COUNTERS
        }


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name not in (".probe", "secret", "log.jsonl")}


@pytest.fixture
def production(postgres_url: str, redis_url: str, tmp_path: Path) -> Production:
    return make_production(postgres_url, redis_url, tmp_path)


def test_a_sound_installation_passes_and_keeps_nothing_of_it(production: Production, tmp_path: Path) -> None:
    with production.api() as http, production.worker() as worker, database(production.environment) as sessions:
        mine = production.submit(steps=3)
        job_when(http, mine["id"], "succeeded")
        running = production.submit(steps=4000, sleep=0.05)
        child = production.in_scene(running["id"])
        before, kept = counts(sessions), files(tmp_path / "uploads")
        results = drill(production.environment)
        assert {name: row["result"] for name, row in results.items()} == dict.fromkeys(ALL, "passed")
        assert "taken over after" in results["killed worker"]["detail"]
        job = http.get(f"/v1/jobs/{running['id']}").json()
        assert (job["state"], job["attempt"], gone(child)) == ("running", 1, False)
        after = counts(sessions)
        assert after.pop("job_events") > before.pop("job_events")  # of the job that runs
        assert after == before
        with sessions() as session:
            for table in (*Owned.__subclasses__(), ApiKey):
                assert session.scalars(select(table).where(table.tenant.startswith(DRILL))).all() == []
        assert files(tmp_path / "uploads") == kept
        assert {path.name for path in (tmp_path / "jobs").iterdir()} == {mine["id"], running["id"]}
        http.post(f"/v1/jobs/{running['id']}/cancel")
        job_when(http, running["id"], "cancelled")
        log = worker.log.read_text().splitlines()  # type: ignore[attr-defined]
        # it never had one of its jobs; to take them from workers that are lost is for everybody's sweep
        assert [line for line in log if "drill" in line and "worker.sweep: " not in line] == []
    assert production.violations() == []


def test_what_is_wrong_is_named(production: Production, make_settings: Callable[..., Settings]) -> None:
    """No worker, no broker, a setting that is for tests only."""
    settings = make_settings(
        database_url=production.environment["DPDY_DATABASE_URL"],
        broker_url=f"redis://127.0.0.1:{free_port()}/0",
        webhook_loopback=True,
    )
    wrong = {checks.readiness: "no worker was seen lately", checks.broker: "does not answer", checks.receivers: "is on"}
    with database(production.environment) as sessions, site(settings, sessions) as made:
        for check, said in wrong.items():
            with pytest.raises(Failed, match=said):
                check(made)
        with pytest.raises(Failed, match="no job of the drill has succeeded"):
            checks.storage(made)
    assert production.violations() == []


@pytest.mark.faults
def test_over_a_bucket(postgres_url: str, redis_url: str, s3_url: str, tmp_path: Path) -> None:
    variables = {"DPDY_STORAGE_URL": s3_url, "DPDY_DATA": str(tmp_path), "DPDY_SCRATCH": str(tmp_path / "scratch")}
    production = make_production(postgres_url, redis_url, tmp_path, **variables)
    with production.api(), production.worker():
        results = drill(production.environment)
    assert {name: row["result"] for name, row in results.items()} == dict.fromkeys(ALL, "passed")
    assert production.violations() == []


def test_embedded_and_a_failure(
    service: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over SQLite, without a broker and without a worker; in this process, where the table is for people."""
    job = service.submit(steer(steps=2))
    monkeypatch.setenv("DPDY_DATA", str(service.settings.data))
    monkeypatch.setenv("DPDY_MIN_FREE_BYTES", "0")
    monkeypatch.setattr(run, "CHECKS", checks.CHECKS[:5])
    assert run_command(app, ["admin", "drill"], "dpdy") == 4
    said = capsys.readouterr()
    assert "skipped" in said.out
    assert "error: readiness failed" in said.err
    assert said.err.count("passed  ") == 3
    assert service.job(job["id"])["state"] == "queued"
    assert service.runner.run(job["id"])


def test_what_a_killed_drill_left_goes_with_the_next(service: Harness) -> None:
    left = f"{DRILL}0123"
    with service.sessions.begin() as session:
        session.add(ApiKey(**row_of_a_key(service, left)))
    with site(service.settings, service.sessions) as made:
        job_id = made.submit(steps=1)
        assert not service.runner.run_next()  # a worker that serves everybody leaves it alone
        with service.sessions() as session:
            tenants = set(session.scalars(select(ApiKey.tenant)))
            assert session.get_one(Job, job_id).tenant == made.tenant
        assert left not in tenants
    with service.sessions() as session:
        for table in (Job, Upload, IdempotencyKey, ApiKey):
            assert session.scalars(select(table)).all() == []


def test_no_tenant_of_the_operator_is_taken_for_a_drill(service: Harness) -> None:
    assert not keys.TENANT.fullmatch(f"{DRILL}1")
    job = service.submit()
    with service.sessions.begin() as session:
        session.get_one(Job, job["id"]).tenant = "xdrill-1"  # `_` stands for any letter in LIKE
    assert service.runner.run_next()


def row_of_a_key(service: Harness, tenant: str) -> dict[str, Any]:
    """A key whose hour is over, as a drill leaves it that was killed."""
    make_key(service.sessions, tenant)
    with service.sessions.begin() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.tenant == tenant)).one()
        session.delete(row)
        values = {column.name: getattr(row, column.name) for column in ApiKey.__table__.columns}
    return values | {"expires_at": row.created_at}
