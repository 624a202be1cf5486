"""`run` and `render` of the stand-in."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dpdy_core.errors import Cancelled, DpdyError, GpuLost, OutOfMemory, RunBusy
from dpdy_core.faults import faults_told_apart
from dpdy_core.rundir import RunDir, read_json, write_atomic, write_json
from dpdy_core.stages import STAGES
from dpdy_core.supervised import die_with_parent, follow_pulse

stopped = False


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"time": "2026-01-01T00:00:00Z", "event": event, **fields}) + "\n")
    sys.stdout.flush()


def note_stop(*_: object) -> None:
    global stopped
    stopped = True


def options(run: RunDir) -> dict[str, float]:
    words = read_json(run.config_file)["settings"]["prior"]["token"].split(",")
    return {key: float(value) for key, _, value in (word.partition("=") for word in words) if value}


def _fill(size: int, path: Path) -> None:
    path.write_bytes(b"x" * size)


def step_through(run: RunDir, wanted: dict[str, float], attempt: int, first: int) -> None:
    """The steps of `scene`, with a checkpoint after each."""
    steps = int(wanted.get("steps", 3))
    checkpoint = run.root / "stages" / "scene.partial.json"
    for step in range(first + 1, steps + 1):
        time.sleep(wanted.get("sleep", 0.0))
        if size := int(wanted.get("ballast", 0)):
            write_atomic(run.root / "ballast" / f"{step}.bin", partial(_fill, size))
        write_json(checkpoint, {"step": step})
        emit(
            "step", stage="scene", step=step, total=steps, progress=step / steps, eta_seconds=1.0, numbers={"loss": 1.0}
        )
        if stopped:
            if wanted.get("slowsave"):
                checkpoint.with_name(".scene.partial.partial.json").write_text('{"st')
                time.sleep(wanted["slowsave"])
            raise Cancelled("stopped", "")
        while step >= 2 and attempt <= wanted.get("hang", 0):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(0.1)


def run_stages(folder: Path, attempt: int) -> None:
    run = RunDir(folder)
    run.remove_partials()
    wanted = options(run)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if wanted.get("deaf") else note_stop)
    for number in range(int(wanted.get("lines", 1))):
        sys.stderr.write(f"attempt {attempt} line {number} \x1b[31mred\x1b[0m\n")
    sys.stderr.flush()
    if wanted.get("orphan"):
        child = subprocess.Popen(["sleep", "600"])
        write_json(run.root / "orphan.json", child.pid)
    for stage in STAGES:
        if run.is_done(stage, "x"):
            emit("skip", stage=stage)
            continue
        emit("start", stage=stage)
        if stage == "scene":
            scene(run, wanted, attempt)
        run.mark_done(stage, "x")
        emit("done", stage=stage, seconds=0.0, numbers={})
    run.renders.mkdir(exist_ok=True)
    (run.renders / "orbit.mp4").write_bytes(bytes(range(256)) * 400)
    write_json(
        run.metrics_file, {"protocol": "plain", "split": "test", "views": [{}], "mean": {"psnr": 20.0}, "notes": []}
    )
    run.write_manifest(attempt)
    emit("finished", numbers={})


def scene(run: RunDir, wanted: dict[str, float], attempt: int) -> None:
    partial = run.root / "stages" / "scene.partial.json"
    first = json.loads(partial.read_text())["step"] if partial.exists() else 0
    write_json(run.root / "starts" / f"{attempt}.json", {"first": first, "pid": os.getpid()})
    run.previews.mkdir(parents=True, exist_ok=True)
    (run.previews / "000000.jpg").write_bytes(b"\xff\xd8preview")
    emit("preview", stage="scene", path="renders/previews/000000.jpg")
    emit("fallback", stage="scene", message="the stand-in computes nothing")
    step_through(run, wanted, attempt, first)
    for word, error in (("oom", OutOfMemory), ("gpulost", GpuLost)):
        if attempt <= wanted.get(word, 0):
            raise error("the stand-in was told so", "none")
    if attempt <= wanted.get("crash", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if code := int(wanted.get("fail", 0)):
        emit(
            "problem", stage="scene", type="bad-input", title="T", detail="no parallax", remedy="move", retryable=False
        )
        sys.exit(code)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The lock that the engine holds on its run folder."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunBusy("another process works in the folder", "") from error
        yield


def render(folder: Path, path: str, out: Path) -> None:
    assert RunDir(folder).config_file.is_file()
    frames = len(json.loads(Path(path).read_text())["camera_path"]) if path.endswith(".json") else 1
    emit("start", stage="render")
    emit("step", stage="render", step=1, total=1, progress=1.0, eta_seconds=0.0, numbers={})
    out.write_bytes(b"video" * frames)
    emit("done", stage="render", seconds=0.0, numbers={})
    emit("finished")


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def main() -> None:
    """As the engine's own command line."""
    if "--supervised" in sys.argv:
        die_with_parent()
    if silence := option("--pulse"):
        follow_pulse(float(silence))
    folder = Path(sys.argv[2])
    if sys.argv[1] == "render":
        return render(folder, option("--path"), Path(option("--out")))
    try:
        with faults_told_apart(), locked(folder):
            run_stages(folder, int(option("--attempt", "1")))
    except DpdyError as error:
        emit("problem", stage="scene", **error.problem())
        sys.exit(error.exit_code)
