"""Faults of the disk: a small tmpfs in a mount namespace of the service's own, filled up and made read-only."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.harness import job_when, steer, submit, upload
from tests.production import STANDIN
from tests.servers import free_port, process, wait_for, wait_ready


@dataclass
class Disk:
    """An embedded service whose uploads and runs lie on a disk of their own; the database does not."""

    http: httpx.Client
    pid: int

    def remount(self, folder: Path, options: str) -> None:
        inside = ["nsenter", "-t", str(self.pid), "-m", "--"]
        subprocess.run([*inside, "mount", "-o", f"remount,{options}", "tmpfs", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder, database = tmp_path / "disk", f"sqlite:///{tmp_path / 'db.sqlite3'}"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=40m tmpfs {folder}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    port = free_port()
    environment = os.environ | {
        "DPDY_ENGINE": json.dumps(STANDIN),
        "DPDY_DATABASE_URL": database,
        "DPDY_STORAGE_URL": f"file://{folder}",
        "DPDY_MIN_FREE_BYTES": str(4 << 20),
        "DPDY_RETRY_SECONDS": "1",
        "DPDY_POLL_SECONDS": "0.5",
        "PYTHONPATH": str(Path.cwd()),
    }
    serve = f"{mount} && exec {sys.executable} -m dpdy serve --port {port} --data {tmp_path / 'data'}"
    url = f"http://127.0.0.1:{port}"
    with (
        process(["unshare", "-m", "sh", "-c", serve], env=environment) as running,
        httpx.Client(base_url=url, timeout=20) as http,
    ):
        wait_ready(url, running, "/readyz")
        yield Disk(http, running.pid)
        inside = ["nsenter", "-t", str(running.pid), "-m", "--", sys.executable, "-m", "tests.faults.violations"]
        checked = subprocess.run([*inside, database, str(folder)], env=environment, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.faults
@pytest.mark.fault("F19")
def test_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    """The disk fills up during a run: admission stops (507), the job waits, and goes on when there is room."""
    taken = upload(disk.http)
    job = submit(disk.http, taken, steer(steps=12, sleep=0.05, ballast=4 << 20))

    def waits() -> bool:
        return "disk is full" in str(disk.http.get(f"/v1/jobs/{job['id']}").json()["warnings"])

    wait_for(waits, 20)
    refused = disk.http.post("/v1/jobs", json={"upload_id": taken, "preset": "smoke"})
    assert (refused.status_code, refused.json()["type"]) == (507, "storage-full")
    refused = disk.http.post("/v1/uploads?filename=b.mp4", content=b"x" * (6 << 20))
    assert (refused.status_code, refused.json()["type"]) == (507, "storage-full")
    disk.remount(tmp_path / "disk", "size=400m")
    done = job_when(disk.http, job["id"], "succeeded", seconds=40)
    assert done["attempt"] >= 2
    assert job_when(disk.http, submit(disk.http, taken)["id"], "succeeded")["attempt"] == 1


@pytest.mark.faults
@pytest.mark.fault("F20")
def test_a_disk_that_cannot_be_written(disk: Disk, tmp_path: Path) -> None:
    """The disk turns read-only: not ready, the worker claims nothing until it can write again; no attempt is lost."""
    taken = upload(disk.http)
    disk.remount(tmp_path / "disk", "ro")
    job = submit(disk.http, taken)
    time.sleep(4)  # several polls
    waiting = disk.http.get(f"/v1/jobs/{job['id']}").json()
    assert (waiting["state"], waiting["attempt"], waiting["warnings"]) == ("queued", 1, [])
    assert disk.http.get("/readyz").status_code == 503
    disk.remount(tmp_path / "disk", "rw")
    assert job_when(disk.http, job["id"], "succeeded", seconds=40)["attempt"] == 1
