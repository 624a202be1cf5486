"""`dpdy serve` as a process, spoken to over HTTP only."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.settings import Settings
from dpdy_core.command import run_command
from tests.harness import job_when, steer, submit, upload
from tests.production import STANDIN
from tests.servers import free_port, process, wait_for, wait_ready
from worker.cli import app

SERVE = [sys.executable, "-m", "dpdy", "serve"]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that is run in this process sends its log to the stderr of its test only."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@contextmanager
def served(data: Path, **variables: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    port = free_port()
    environment = os.environ | {
        "DPDY_ENGINE": json.dumps(STANDIN),
        "DPDY_MIN_FREE_BYTES": "0",
        "DPDY_PROGRESS_SECONDS": "0.1",
        **variables,
    }
    command = [*SERVE, "--port", str(port), "--data", str(data)]
    with process(command, env=environment) as running, httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        wait_ready(str(http.base_url).rstrip("/"), running, "/readyz")
        yield http, running


def test_the_whole_story_then_a_restart_in_the_middle(tmp_path: Path) -> None:
    with served(tmp_path) as (http, running):
        job = submit(http, upload(http), steer(steps=4))
        done = job_when(http, job["id"], "succeeded")
        assert done["metrics"]["mean"] == {"psnr": 20.0}
        items = {item["path"]: item["url"] for item in http.get(f"/v1/jobs/{job['id']}/artifacts").json()["items"]}
        assert len(http.get(items["renders/orbit.mp4"]).content) == 102400
        rendered = http.post(f"/v1/jobs/{job['id']}/renders", json={"path": "orbit"}).json()
        assert job_when(http, rendered["id"], "succeeded")["kind"] == "render"
        assert http.get("/v1/info").json()["devices"]

        cancelled = submit(http, upload(http), steer(steps=400, sleep=0.05))
        wait_for(lambda: http.get(f"/v1/jobs/{cancelled['id']}").json()["stage"] == "scene")
        http.post(f"/v1/jobs/{cancelled['id']}/cancel")
        job_when(http, cancelled["id"], "cancelled", seconds=10)

        resumed = submit(http, upload(http), steer(steps=40, sleep=0.05))
        wait_for(lambda: (http.get(f"/v1/jobs/{resumed['id']}").json()["stages"][5]["step"] or 0) >= 5)
        with http.stream("GET", f"/v1/jobs/{resumed['id']}/events") as stream:  # an open stream does not hold it up
            next(stream.iter_lines())
            running.send_signal(signal.SIGTERM)
            assert running.wait(15) == 0, running.log.read_text()  # type: ignore[attr-defined]
    with served(tmp_path) as (http, _):
        done = job_when(http, resumed["id"], "succeeded")
        assert done["attempt"] == 2
        start = json.loads((tmp_path / "jobs" / resumed["id"] / "run" / "starts" / "2.json").read_text())
        assert start["first"] >= 5


def test_killed_outright_the_next_start_goes_on(tmp_path: Path) -> None:
    quick = {"DPDY_LEASE_SECONDS": "3", "DPDY_HEARTBEAT_SECONDS": "0.3"}
    with served(tmp_path, **quick) as (http, running):
        job = submit(http, upload(http), steer(steps=40, sleep=0.05))
        wait_for(lambda: (http.get(f"/v1/jobs/{job['id']}").json()["stages"][5]["step"] or 0) >= 5)
        first = json.loads((tmp_path / "jobs" / job["id"] / "run" / "starts" / "1.json").read_text())
        running.kill()
        running.wait()
        wait_for(lambda: not Path(f"/proc/{first['pid']}/exe").exists(), 5)  # the child does not outlive it
    with served(tmp_path, **quick, DPDY_SWEEP_SECONDS="0.3") as (http, _):
        done = job_when(http, job["id"], "succeeded")
        assert done["attempt"] == 2
        assert any("no sign of life" in warning for warning in done["warnings"])


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"DPDY_MAX_UPLOAD_BYTES": "many"}, "DPDY_MAX_UPLOAD_BYTES"),
        ([], {"DPDY_LEASE_SECONDS": "9"}, "three times"),
        ([], {"DPDY_STORAGE_URL": "ftp://host/folder"}, "DPDY_STORAGE_URL"),
        ([], {"DPDY_DATABASE_URL": "mysql://x"}, "DPDY_DATABASE_URL"),
    ],
)
def test_refuses_clearly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    variables: dict[str, str],
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_command(app, ["serve", "--data", str(tmp_path / "data"), *arguments], "dpdy") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_command(app, ["serve", "--data", str(tmp_path), "--port", port], "dpdy") == 2
    assert "cannot listen" in capsys.readouterr().err


def test_a_worker_needs_a_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["worker"], "dpdy") == 2
    assert "DPDY_BROKER_URL" in capsys.readouterr().err


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["serve", "--help"], "dpdy") == 0
    text = capsys.readouterr().out
    assert "Example:" in text
    for name in Settings.model_fields:
        assert f"DPDY_{name.upper()}" in text


def test_ctrl_c_ends_it_as_interrupted(tmp_path: Path) -> None:
    with served(tmp_path) as (_, running):
        running.send_signal(signal.SIGINT)
        assert running.wait(15) == 130
