import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import cli
from api.client.client import DpdyClient
from dpdy_core.command import run_command

VIDEO = b"not really a video"
FILES = {"renders/orbit.mp4": b"orbit", "renders/orbit_depth.mp4": b"depth", "scene/step.safetensors": b"weights"}
METRICS = {
    "mean": {"psnr": 21.5, "ssim": 0.7, "lpips": None, "moving": {"psnr": 17.25}},
    "notes": ["lpips: no weights"],
}
STAGES = ("ingest", "scene", "render")


class FakeServer:
    """One upload and one job, which has gone a stage further at each look."""

    def __init__(self, end: str = "succeeded", problem: dict[str, Any] | None = None) -> None:
        self.end, self.problem = end, problem
        self.looks = 0
        self.calls: list[str] = []
        self.submitted: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path.removeprefix("/v1")
        self.calls.append(f"{method} {path}")
        match method, path:
            case "POST", "/uploads":
                digest = hashlib.sha256(request.read()).hexdigest()
                return httpx.Response(201, json={"id": "up-1", "state": "checking", "sha256": digest})
            case "GET", "/uploads/up-1":
                return httpx.Response(200, json={"id": "up-1", "state": "ready", "report": {}})
            case "POST", "/jobs":
                self.submitted = json.loads(request.content)
                return httpx.Response(202, json=self.job())
            case "GET", "/jobs":
                return httpx.Response(200, json={"items": [self.job()], "next_cursor": "more"})
            case "GET", "/jobs/job-1":
                self.looks += 1
                return httpx.Response(200, json=self.job())
            case "GET", "/jobs/job-1/events":
                return httpx.Response(200, text="a proxy that holds streams back: the client then asks for the job")
            case "GET", "/jobs/job-1/artifacts":
                items = [
                    {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    for name, data in FILES.items()
                ]
                return httpx.Response(200, json={"items": items})
            case "GET", "/jobs/job-1/logs":
                lines = [{"text": "one"}, {"text": "two"}] if "after" not in request.url.params else []
                return httpx.Response(200, json={"items": lines, "next_cursor": "2"})
            case _, "/jobs/job-1/cancel" | "/jobs/job-1/retry" | "/jobs/job-1":
                return httpx.Response(202, json=self.job())
        if path.startswith("/jobs/job-1/artifacts/"):
            return httpx.Response(200, content=FILES[path.removeprefix("/jobs/job-1/artifacts/")])
        gone = {"type": "not-found", "title": "T", "detail": f"no {path}", "remedy": "look at `dpdy list`"}
        return httpx.Response(404, json=gone)

    def job(self) -> dict[str, Any]:
        ended = self.looks > len(STAGES) + 1
        state = self.end if ended else "running" if self.looks > 1 else "queued"
        stages = [
            {"name": name, "state": self._stage(number), "progress": 0.5, "step": 5, "total": 10}
            for number, name in enumerate(STAGES, start=2)
        ]
        return {
            "id": "job-1",
            "name": "desk",
            "state": state,
            "stage": STAGES[min(max(self.looks - 2, 0), 2)] if state == "running" else None,
            "stages": stages,
            "progress": 0.5,
            "eta_seconds": 75.0,
            "queue_position": 1,
            "attempt": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "problem": self.problem if ended else None,
            "warnings": ["depth: fell back to a plane sweep"] if self.looks > 2 else [],
            "metrics": METRICS if ended and self.end == "succeeded" else None,
        }

    def _stage(self, number: int) -> str:
        return "done" if self.looks > number else "running" if self.looks == number else "pending"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    use(fake, monkeypatch)
    return fake


def use(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPDY_SERVER", raising=False)
    monkeypatch.setattr(cli, "DpdyClient", partial(DpdyClient, transport=httpx.MockTransport(fake), patience=0.0))
    monkeypatch.chdir(Path(__file__).parent)


def dpdy(*arguments: str | Path) -> int:
    return run_command(cli.app, [str(argument) for argument in arguments], "dpdy")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "desk.mp4").write_bytes(VIDEO)
    return tmp_path / "desk.mp4"


def test_submit_prints_the_id_of_the_job(
    server: FakeServer, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "My Path.json"
    path.write_text(json.dumps({"camera_path": [{"fov": 50}]}))
    code = dpdy(
        "submit", video, "--preset", "smoke", "--set", "scene.steps=7", "--path", "orbit", "--path", path, "--name", "d"
    )
    printed = capsys.readouterr()
    assert (code, printed.out) == (0, "job-1\n")
    assert "http://127.0.0.1:8000/#/jobs/job-1" in printed.err
    assert server.submitted == {
        "upload_id": "up-1",
        "preset": "smoke",
        "settings": {"scene.steps": 7},
        "name": "d",
        "camera_paths": ["orbit", {"name": "my-path", "camera_path": [{"fov": 50}]}],
    }


def test_the_whole_story_in_one_line(
    server: FakeServer, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert dpdy("submit", video, "--wait", "--download", out) == 0
    printed = capsys.readouterr()
    assert (out / "renders/orbit.mp4").read_bytes() == b"orbit"
    assert not (out / "scene").exists()
    assert "21.500" in printed.out
    assert "17.250" in printed.out
    assert str(out / "renders/orbit.mp4") in printed.out
    for line in ("ingest    done", "scene     running", "5/10  eta 1:15", "fell back to a plane sweep"):
        assert line in printed.err
    assert printed.err.count("fell back") == 1
    assert server.calls[:2] == ["POST /uploads", "GET /uploads/up-1"]


def test_json_is_one_document_on_stdout(
    server: FakeServer, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del server
    assert dpdy("submit", video, "--wait", "--download", tmp_path / "r", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "succeeded"
    assert document["files"] == [str(tmp_path / "r/renders/orbit.mp4"), str(tmp_path / "r/renders/orbit_depth.mp4")]


@pytest.mark.parametrize(
    ("end", "type", "code"), [("failed", "job-failed", 4), ("failed", "cameras-failed", 3), ("cancelled", "", 5)]
)
def test_the_exit_code_is_the_jobs(
    end: str, type: str, code: int, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {"type": type, "title": "T", "detail": "it diverged", "remedy": "lower the rate"} if type else None
    use(FakeServer(end, problem), monkeypatch)
    assert dpdy("submit", video, "--wait", "--json") == code
    printed = capsys.readouterr()
    assert json.loads(printed.out)["type"] == (type or "cancelled")
    assert "Traceback" not in printed.err
    assert ("it diverged. lower the rate" in printed.err) == bool(type)


def test_an_unreachable_server_is_exit_code_6(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "DpdyClient", partial(DpdyClient, patience=0.0))
    assert dpdy("status", "job-1", "--server", "http://127.0.0.1:9") == 6
    assert "does not answer" in capsys.readouterr().err


def test_the_server_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "DpdyClient", partial(DpdyClient, patience=0.0))
    monkeypatch.setenv("DPDY_SERVER", "not a url")
    assert dpdy("status", "job-1") == 2


@pytest.mark.parametrize(
    "arguments",
    [["submit", "missing.mp4"], ["submit", "test_client_cli.py", "--path", "nowhere"], ["upload", "no.mp4"]],
)
def test_a_capture_or_path_that_is_not_there_is_bad_input(server: FakeServer, arguments: list[str]) -> None:
    assert dpdy(*arguments) == 3
    assert server.calls == []  # found out before anything is sent


def test_usage_errors_are_exit_code_2(server: FakeServer) -> None:
    assert dpdy("submit") == 2
    assert dpdy("submit", "test_client_cli.py", "--set", "nonsense") == 2
    assert dpdy("status", "job-2") == 2
    assert server.calls == ["GET /jobs/job-2"]


def test_status_says_where_the_job_stands(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.looks = 2
    assert dpdy("status", "job-1") == 0
    out = capsys.readouterr().out
    assert "job-1  running  scene  50%  eta 1:15" in out
    assert "note: depth: fell back" in out


def test_list_logs_and_the_small_commands(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert dpdy("list") == 0
    listed = capsys.readouterr()
    assert "desk" in listed.out
    assert "--cursor more" in listed.err
    assert dpdy("logs", "job-1") == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    for command in ("cancel", "retry", "delete"):
        assert dpdy(command, "job-1") == 0
    assert server.calls[-3:] == ["POST /jobs/job-1/cancel", "POST /jobs/job-1/retry", "DELETE /jobs/job-1"]
    assert dpdy("list", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["next_cursor"] == "more"


def test_download_takes_patterns(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del server
    assert dpdy("download", "job-1", "--out", tmp_path, "--only", "renders/*_depth.mp4") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'renders/orbit_depth.mp4'}\n"
    assert dpdy("download", "job-1", "--out", tmp_path, "--all") == 0
    assert (tmp_path / "scene/step.safetensors").read_bytes() == b"weights"
