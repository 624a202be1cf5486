"""Faults of the database: a real PostgreSQL that crashes, and a connection that is cut at the worst moment."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.faults.cutting_proxy import CuttingProxy
from tests.harness import job_when
from tests.production import Production, gone, make_production
from tests.servers import Postgres, own_postgres, wait_for


@pytest.fixture
def crashing() -> Iterator[Postgres]:
    with own_postgres() as server:
        yield server


@pytest.mark.faults
@pytest.mark.fault("F13")
def test_the_database_crashes_for_longer_than_a_lease(crashing: Postgres, redis_url: str, tmp_path: Path) -> None:
    """PostgreSQL crashes mid-job and is away for two leases: the child goes on, API 503, the same attempt succeeds."""
    fleet = make_production(crashing.url, redis_url, tmp_path)
    with fleet.api() as http, fleet.worker(), fleet.worker():
        job = fleet.submit(steps=300, sleep=0.05)
        child = fleet.in_scene(job["id"])
        crashing.crash()
        until = time.monotonic() + 8
        while time.monotonic() < until:
            answer = http.get(f"/v1/jobs/{job['id']}", timeout=20)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            assert not gone(child)
            time.sleep(0.5)
        crashing.start()
        wait_for(lambda: http.get(f"/v1/jobs/{job['id']}").status_code == 200, 20)
        done = job_when(http, job["id"], "succeeded", seconds=60)
        assert (done["attempt"], done["progress"], done["warnings"]) == (
            1,
            1.0,
            ["scene: the stand-in computes nothing"],
        )
        another = fleet.submit(steps=3)
        assert job_when(http, another["id"], "succeeded")["attempt"] == 1
    assert fleet.violations() == []


@pytest.mark.fault("F15")
def test_the_answer_to_the_last_commit_is_lost(fleet: Production) -> None:
    """The connection drops at the commit of "succeeded": it is written once, and not taken for a lost attempt."""
    url = make_url(fleet.environment["DPDY_DATABASE_URL"])
    with tempfile.TemporaryDirectory(prefix="dpdy-cut-") as folder:
        proxy = CuttingProxy(Path(folder), Path(str(url.query["host"])), b'"psnr"')
        cut = url.update_query_dict({"host": folder}).render_as_string(hide_password=False)
        with fleet.api() as http, fleet.worker(variables={"DPDY_DATABASE_URL": cut}) as worker:
            job = fleet.submit(steps=3)
            done = job_when(http, job["id"], "succeeded")
            assert (done["attempt"], proxy.cuts) == (1, 1)
            log = worker.log.read_text  # type: ignore[attr-defined]
            wait_for(lambda: "the end of attempt 1 is not written yet" in log(), 10)
            wait_for(lambda: "attempt 1 ended: succeeded" in ended(http, job["id"]), 10)
        proxy.close()


def ended(http: httpx.Client, job_id: str) -> list[str]:
    return [line["text"] for line in http.get(f"/v1/jobs/{job_id}/logs").json()["items"]]
