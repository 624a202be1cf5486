"""A real PostgreSQL with a standby that takes over without the last commits."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from api.db.session import make_engine, make_sessions
from api.jobs.files import make_files
from api.settings import Settings
from tests.harness import job_when, steer, upload
from tests.production import make_production
from tests.servers import Postgres, own_postgres, wait_for
from worker.garbage import collect


@contextmanager
def standby(primary: Postgres) -> Iterator[Path]:
    """A copy that follows the primary over a stream; yields the folder of its data and socket."""
    folder = Path(tempfile.mkdtemp(prefix="dpdy-standby-"))
    user = primary.server.system_user
    if user:
        shutil.chown(folder, user)
    data, programs = folder / "data", primary.server.bin_path
    source = str(make_url(primary.url).query["host"])

    def run(program: str, *words: str) -> None:
        subprocess.run([programs / program, *words], user=user, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    try:
        run("pg_basebackup", "-D", str(data), "-h", source, "-U", "postgres", "-R", "-X", "stream", "-c", "fast")
        run("pg_ctl", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", f'-h "" -k {folder}', "start")
        yield folder
    finally:
        subprocess.run([programs / "pg_ctl", "-D", str(data), "-m", "immediate", "stop"], user=user, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.faults
@pytest.mark.fault("F14")
def test_a_failover_forgets_the_last_commits(redis_url: str, tmp_path: Path) -> None:
    """PostgreSQL fails over without the last commits: a running job goes on, a repeat makes a forgotten job once."""
    with own_postgres() as primary, standby(primary) as second:
        both = make_url(primary.url)
        hosts = {"host": (str(both.query["host"]), str(second)), "target_session_attrs": "read-write"}
        url = both.update_query_dict(hosts).render_as_string(hide_password=False)
        fleet = make_production(url, redis_url, tmp_path, DPDY_LEASE_SECONDS="20")
        with fleet.api() as http, fleet.worker(), fleet.worker():
            upload_id = upload(http)
            kept = fleet.submit(steps=300, sleep=0.05)["id"]
            fleet.in_scene(kept)
            with psycopg.connect(host=str(second), user="postgres", dbname="postgres", autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
                connection.execute("SELECT pg_reload_conf()")
                wait_for(lambda: not connection.execute("SELECT 1 FROM pg_stat_wal_receiver").fetchall())
                body = {"upload_id": upload_id, "preset": "smoke", "settings": steer(steps=3)}
                key = {"Idempotency-Key": "after the stream broke"}
                forgotten = http.post("/v1/jobs", json=body, headers=key).json()["id"]
                job_when(http, forgotten, "succeeded")
                primary.crash()
                assert http.get(f"/v1/jobs/{kept}").status_code == 503
                connection.execute("SELECT pg_promote()")
            wait_for(lambda: http.get(f"/v1/jobs/{kept}").status_code == 200)
            assert http.get(f"/v1/jobs/{forgotten}").status_code == 404
            again = [http.post("/v1/jobs", json=body, headers=key).json()["id"] for _ in range(2)]
            assert again[0] == again[1] != forgotten
            assert job_when(http, again[0], "succeeded", seconds=60)["attempt"] == 1
            assert job_when(http, kept, "succeeded", seconds=60)["attempt"] == 1
        os.utime(fleet.data / "jobs" / forgotten, (0, 0))
        settings = Settings(_env_file=None, database_url=url, storage_url=f"file://{tmp_path}")  # type: ignore[call-arg]
        engine = make_engine(settings.database)
        waste = collect(make_sessions(engine), make_files(settings), settings, dry_run=False)
        engine.dispose()
        assert [found.name for found in waste] == [f"jobs/{forgotten}"]
        assert fleet.violations() == []
