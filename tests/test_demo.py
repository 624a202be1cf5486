"""The demo with the stand-in engine: what it starts, what it fetches, and that nothing of it stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "tests" / "web" / "stand_in_engine.py"


def start(out: Path, capture: bytes, pace: float = 0.0, *options: str) -> subprocess.Popen[str]:
    (out / "clip.mp4").write_bytes(capture)
    environment = os.environ | {
        "DPDY_ENGINE": json.dumps([sys.executable, str(ENGINE), str(pace)]),
        "DPDY_DATABASE_URL": "sqlite:////nonexistent/other.sqlite3",  # the demo keeps away from a configured service
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "worker.demo", "--out", out / "demo", "--capture", out / "clip.mp4", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=ROOT)


def service_is_gone(out: Path) -> bool:
    log = next((out / "demo").glob("*/service.log")).read_text()
    found = re.search(r"Started server process \[(\d+)\]", log)
    assert found, log
    return not Path(f"/proc/{found[1]}").exists()


def test_the_demo_ends_well_with_metrics_and_videos(tmp_path: Path) -> None:
    demo = start(tmp_path, b"a video", 0.0, "--json")
    out, errors = demo.communicate(timeout=120)
    assert demo.returncode == 0, errors
    document = json.loads(out)
    assert document["metrics"]["mean"]["psnr"] == 21.37
    videos = [Path(file) for file in document["files"] if file.endswith(".mp4")]
    assert len(videos) == 6
    assert all(video.stat().st_size > 1000 for video in videos)
    for line in ("upload", "scene", "evaluate", "report.html"):
        assert line in errors
    assert service_is_gone(tmp_path)


def test_a_failed_job_gives_its_exit_code_and_cause(tmp_path: Path) -> None:
    demo = start(tmp_path, b"fail")
    _, errors = demo.communicate(timeout=120)
    assert demo.returncode == 3
    assert "2 of 24 frames found their camera. film with more texture" in errors
    assert service_is_gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_service(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path, b"a video", 5.0)
    assert demo.stderr
    for line in demo.stderr:
        if "ingest" in line or "queued" in line:
            break
    time.sleep(0.5)
    demo.send_signal(number)
    demo.communicate(timeout=120)
    assert demo.returncode == 130
    assert service_is_gone(tmp_path)


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "worker.demo", "--out", tmp_path / "file"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert result.returncode == 2
    assert "cannot be made" in result.stderr
