"""Several hosts: real workers with a disk of their own each, sharing PostgreSQL, Redis and a real S3 server.

As root each has a network namespace of its own, too, and reaches the three over its cable only.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url, text

from api.db.session import make_engine
from dpdy_core.rundir import read_json
from tests import networks
from tests.faults.cutting_proxy import NAME as SOCKET
from tests.harness import Document, job_when
from tests.production import WORKER, Production, gone, make_production
from tests.servers import wait_for
from worker.invariants import Violation

PUBLISH = "0.5"
ODD = [sys.executable, "-m", "tests.faults.odd_worker"]


@pytest.fixture
def hosts(postgres_url: str, redis_url: str, s3_url: str, tmp_path: Path) -> Iterator[Production]:
    """The production form over a bucket; its invariants are checked when nothing runs any more."""
    variables = {
        "DPDY_STORAGE_URL": s3_url,
        "DPDY_SCRATCH": str(tmp_path / "api"),
        "DPDY_DATA": str(tmp_path / "api"),
        "DPDY_PUBLISH_SECONDS": PUBLISH,
    }
    production = make_production(postgres_url, redis_url, tmp_path, **variables)
    yield production
    found: list[Violation] = production.violations()
    assert found == []


@contextmanager
def host(
    fleet: Production,
    name: str,
    publish: str = PUBLISH,
    command: list[str] = WORKER,
    cable: networks.Network | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that shares no folder with the others, and no network."""
    place = str(fleet.data / name)
    variables = {"DPDY_SCRATCH": place, "DPDY_DATA": place, "DPDY_PUBLISH_SECONDS": publish}
    with ExitStack() as stack:
        if networks.POSSIBLE:
            cable = cable or stack.enter_context(networks.network())
            variables |= over(cable, fleet)
            command = [*cable.prefix, *command]
        yield stack.enter_context(fleet.worker(command, variables))


def over(cable: networks.Network, fleet: Production) -> dict[str, str]:
    """The variables of a worker that reaches database, broker and bucket by its cable."""
    database = make_url(fleet.environment["DPDY_DATABASE_URL"])
    host, port = cable.serve(Path(str(database.query["host"])) / SOCKET).split(":")
    database = database.difference_update_query(["host"]).set(host=host, port=int(port))
    broker, bucket = (int(url.split(":")[2].split("/")[0]) for url in (fleet.redis_url, os.environ["AWS_ENDPOINT_URL"]))
    return {
        "DPDY_DATABASE_URL": database.render_as_string(hide_password=False),
        "DPDY_BROKER_URL": f"redis://{cable.serve(broker)}/0",
        "AWS_ENDPOINT_URL": f"http://{cable.serve(bucket)}",
    }


def where(fleet: Production, job_id: str, attempt: int) -> tuple[str, Document]:
    """On which host an attempt has begun its scene, and what it says of it."""

    def look() -> list[Path]:
        return list(fleet.data.glob(f"*/*/jobs/{job_id}/run/starts/{attempt}.json"))

    (file,) = wait_for(look, 30)
    document: Document = read_json(file)
    return file.relative_to(fleet.data).parts[0], document


def whole(http: httpx.Client, job_id: str) -> set[str]:
    """All artifacts, downloaded, with the hashes that are promised."""
    items = http.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    for item in items:
        assert hashlib.sha256(http.get(item["url"]).content).hexdigest() == item["sha256"], item["path"]
    return {item["path"] for item in items}


def step_reached(http: httpx.Client, job_id: str) -> int:
    stages = http.get(f"/v1/jobs/{job_id}").json()["stages"]
    return next(stage["step"] or 0 for stage in stages if stage["name"] == "scene")


@pytest.mark.faults
@pytest.mark.fault("F2")
def test_a_host_is_lost_with_its_disk(hosts: Production) -> None:
    """SIGKILL of a worker on one of three hosts, its disk lost: another host goes on from the stored checkpoint."""
    with hosts.api() as http, ExitStack() as stack:
        workers = {name: stack.enter_context(host(hosts, name)) for name in ("one", "two", "three")}
        job = hosts.submit(steps=120, sleep=0.05)
        first, start = where(hosts, job["id"], 1)
        wait_for(lambda: step_reached(http, job["id"]) >= 60, 30)
        os.kill(workers[first].pid, signal.SIGKILL)
        wait_for(lambda: gone(start["pid"]), 5)
        shutil.rmtree(hosts.data / first, ignore_errors=True)
        second, again = where(hosts, job["id"], 2)
        assert second != first
        assert again["first"] >= 30  # of 60 and more; stored every half second, or ten steps
        assert job_when(http, job["id"], "succeeded", seconds=40)["attempt"] == 2
        assert {"renders/orbit.mp4", "starts/1.json", "starts/2.json"} <= whole(http, job["id"])


@pytest.mark.faults
@pytest.mark.fault("F3")
def test_a_drained_host_hands_its_job_over(hosts: Production) -> None:
    """SIGTERM of a worker on a host of its own: not a step is lost, another host goes on, no scratch is left."""
    with hosts.api() as http, ExitStack() as stack:
        leaving = stack.enter_context(host(hosts, "one", publish="600"))  # it stores only what it must
        job = hosts.submit(steps=120, sleep=0.05)
        where(hosts, job["id"], 1)
        wait_for(lambda: step_reached(http, job["id"]) >= 20, 30)
        stack.enter_context(host(hosts, "two"))
        reached = step_reached(http, job["id"])
        leaving.terminate()
        leaving.wait(20)
        second, again = where(hosts, job["id"], 2)
        assert (second, again["first"] >= reached) == ("two", True)
        assert list((hosts.data / "one").glob("*/jobs")) == []
        assert job_when(http, job["id"], "succeeded", seconds=40)["attempt"] == 2
        whole(http, job["id"])


@pytest.mark.faults
@pytest.mark.fault("F5")
def test_a_frozen_host_comes_back(hosts: Production) -> None:
    """SIGSTOP of a worker with a disk of its own, past its lease: what it then stores does not count."""
    with hosts.api() as http, ExitStack() as stack:
        workers = {name: stack.enter_context(host(hosts, name)) for name in ("one", "two")}
        job = hosts.submit(steps=160, sleep=0.05)
        first, _ = where(hosts, job["id"], 1)
        wait_for(lambda: step_reached(http, job["id"]) >= 40, 30)
        os.kill(workers[first].pid, signal.SIGSTOP)
        try:
            second, _ = where(hosts, job["id"], 2)
            assert second != first
        finally:
            os.kill(workers[first].pid, signal.SIGCONT)
        assert job_when(http, job["id"], "succeeded", seconds=60)["attempt"] == 2
        assert "starts/2.json" in whole(http, job["id"])


@pytest.mark.faults
@pytest.mark.fault("F5")
@pytest.mark.skipif(not networks.POSSIBLE, reason="network namespaces need root and `ip`")
def test_the_cable_of_a_host_is_pulled(hosts: Production) -> None:
    """A host in a network namespace loses its network past its lease: another goes on, its late writes are refused."""
    with hosts.api() as http, ExitStack() as stack:
        cables = {name: stack.enter_context(networks.network()) for name in ("one", "two", "three")}
        workers = {name: stack.enter_context(host(hosts, name, cable=cable)) for name, cable in cables.items()}
        job = hosts.submit(steps=400, sleep=0.05)
        first, start = where(hosts, job["id"], 1)
        wait_for(lambda: step_reached(http, job["id"]) >= 40, 30)
        cables[first].pull()
        second, again = where(hosts, job["id"], 2)
        assert second != first
        assert again["first"] >= 20
        log = workers[first].log.read_text  # type: ignore[attr-defined]
        wait_for(lambda: "the database does not answer" in log(), 30)  # it does not wait for an answer forever
        reached = step_reached(http, job["id"])
        cables[first].plug()
        wait_for(lambda: "another worker has taken over" in log(), 60)
        wait_for(lambda: gone(start["pid"]), 5)
        assert step_reached(http, job["id"]) >= reached
        done = job_when(http, job["id"], "succeeded", seconds=60)
        assert done["attempt"] == 2
        assert "starts/2.json" in whole(http, job["id"])
        after = hosts.submit(steps=3)  # and all three go on
        assert job_when(http, after["id"], "succeeded")["attempt"] == 1


@pytest.mark.faults
@pytest.mark.fault("F33")
def test_a_rolling_upgrade(hosts: Production) -> None:
    """Old and new workers, a migration in the middle: the job moves on; unknown settings are left to the new one."""
    database = make_engine(make_url(hosts.environment["DPDY_DATABASE_URL"]))
    with hosts.api() as http, ExitStack() as stack:
        old = stack.enter_context(host(hosts, "old"))
        moved = hosts.submit(steps=150, sleep=0.05)
        where(hosts, moved["id"], 1)
        with database.begin() as connection:  # as the next version's migration may do: it only adds
            connection.execute(text("ALTER TABLE jobs ADD COLUMN novelty text"))
            connection.execute(text("ALTER TABLE artifacts ADD COLUMN novelty text NOT NULL DEFAULT 'none'"))
            connection.execute(text("CREATE TABLE novelties (id text PRIMARY KEY)"))
        reached = step_reached(http, moved["id"])
        new = stack.enter_context(host(hosts, "new", command=[*ODD, "version=99.0"]))
        assert "99.0" in {worker["version"] for worker in http.get("/v1/info").json()["workers"]}
        old.terminate()
        old.wait(20)
        second, again = where(hosts, moved["id"], 2)
        assert (second, again["first"] >= reached) == ("new", True)
        assert job_when(http, moved["id"], "succeeded", seconds=40)["attempt"] == 2
        whole(http, moved["id"])
        new.terminate()
        new.wait(20)
        unknown = hosts.submit(steps=3)
        with database.begin() as connection:  # as the new API would write it
            connection.execute(
                text("UPDATE jobs SET config = jsonb_set(config::jsonb, '{novelty}', '1') WHERE id = :id"),
                {"id": unknown["id"]},
            )
        stack.enter_context(host(hosts, "left-over"))
        wait_for(lambda: http.get(f"/v1/jobs/{unknown['id']}").json()["attempt"] == 2, 30)
        known = hosts.submit(steps=3)  # the queue behind it keeps moving
        assert job_when(http, known["id"], "succeeded")["attempt"] == 1
        with database.connect() as connection:
            ended = connection.execute(
                text("SELECT outcome, detail FROM attempts WHERE job_id = :id AND outcome IS NOT NULL"),
                {"id": unknown["id"]},
            ).all()
        assert [outcome for outcome, _ in ended] == ["version-mismatch"]  # and never again by this worker
        assert "does not know these settings: novelty" in ended[0][1]
        stack.enter_context(host(hosts, "newest", command=[*ODD, "version=99.0"]))
        done = job_when(http, unknown["id"], "succeeded", "failed", seconds=30)
        assert (done["state"], done["attempt"]) == ("succeeded", 2), done["problem"]
    database.dispose()
