"""SIGKILL at every point where a file or a commit becomes real: before and after, one after the other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api.db import queries
from api.settings import Settings
from dpdy_core.rundir import RunDir, sha256_file
from tests.faults.conftest import violations
from tests.harness import harness, steer
from tests.production import STANDIN

DYING = [sys.executable, "-m", "tests.faults.dying_engine"]
DYING_WORKER = [sys.executable, "-m", "tests.faults.dying_worker"]


def results(run: RunDir) -> dict[str, str]:
    """The hash of every file that does not tell of the attempts themselves."""
    files = (path for path in run.root.rglob("*") if path.is_file())
    names = {path.relative_to(run.root).as_posix(): path for path in files}
    return {n: sha256_file(p) for n, p in names.items() if not n.startswith(("starts/", ".lock", "manifest.json"))}


@pytest.mark.faults
@pytest.mark.fault("F6")
def test_the_engine_killed_at_every_rename(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    """SIGKILL before and after every fsync and rename of a run: it always goes on, to the same files."""
    with harness(make_settings()) as service:
        whole = service.finished(steps=2)
        run = RunDir(service.runner.files.run(whole["id"]))
        expected = results(run)
    kills, point = 0, 1
    while True:
        killed = RunDir(tmp_path / f"run-{point}")
        killed.root.mkdir()
        killed.config_file.write_bytes(run.config_file.read_bytes())
        environment = os.environ | {"DIE_AT": str(point)}
        code = subprocess.run([*DYING, "run", str(killed.root)], env=environment, capture_output=True).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        again = subprocess.run([*STANDIN, "run", str(killed.root), "--attempt", "2"], capture_output=True)
        assert again.returncode == 0, again.stderr.decode()
        assert results(killed) == expected, point
        point += 1
    assert kills >= 40


@pytest.mark.faults
@pytest.mark.fault("F6")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_worker_killed_at_every_commit(make_settings: Callable[..., Settings], moment: str) -> None:
    """SIGKILL of the worker before and after every commit of a run: one result, no stage twice, nothing left."""
    settings = make_settings(lease_seconds=1.5, heartbeat_seconds=0.2)
    with harness(settings) as service:
        point, kills = 1, 0
        while True:
            job = service.submit(steer(steps=2))
            environment = os.environ | {
                "DPDY_DATA": str(settings.data),
                "DPDY_ENGINE": json.dumps(STANDIN),
                "DIE_AT": str(point),
                "DIE": moment,
                **{
                    f"DPDY_{name.upper()}": str(getattr(settings, name))
                    for name in (
                        "lease_seconds",
                        "heartbeat_seconds",
                        "progress_seconds",
                        "sweep_seconds",
                        "min_free_bytes",
                    )
                },
            }
            ran = subprocess.run([*DYING_WORKER, job["id"]], env=environment, capture_output=True)
            survivor = subprocess.run(
                [*DYING_WORKER, job["id"]], env=environment | {"DIE_AT": "0"}, capture_output=True
            )
            assert survivor.returncode == 0, survivor.stderr.decode()
            done = service.job(job["id"])
            assert done["state"] == "succeeded", (point, done, survivor.stderr.decode())
            assert done["attempt"] <= 2
            with service.sessions() as session:
                events = queries.events(session, job["id"], 0)
            assert [event.data["state"] for event in events if event.kind == "state"].count("succeeded") == 1
            assert violations(service) == []
            if ran.returncode == 0:
                break
            assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()
            kills, point = kills + 1, point + 1
        assert kills >= 3
