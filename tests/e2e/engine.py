"""The real engine at its smallest: a synthetic capture and settings that take seconds a stage."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from dpdy_core.cli import app
from dpdy_core.command import run_command

TINY: dict[str, object] = {
    "ingest.max_frames": 12,
    "prior.steps": 12,
    "prior.class_images": 2,
    "prior.validation_samples": 1,
    "prior.checkpoint_seconds": 0.01,
    "scene.steps": 40,
    "scene.rays": 256,
    "scene.max_size": 48,
    "scene.checkpoint_seconds": 0.01,
    "scene.preview_every": 20,
    "scene.sds.every": 4,
    "render.paths": ["stabilised", "bullet-time"],
    "render.seconds": 0.5,
    "render.fps": 8,
}


def set_options(settings: dict[str, object]) -> list[str]:
    """`--set KEY=VALUE` arguments."""
    return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def dpdy(*arguments: str | Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run `python -m dpdy_core` to its end; fails the test on another exit code than `check`."""
    result = subprocess.run(
        [sys.executable, "-m", "dpdy_core", *map(str, arguments)], capture_output=True, text=True, timeout=500
    )
    if check is not None:
        assert result.returncode == check, result.stderr[-3000:]
    return result


def here(*arguments: object) -> int:
    """The exit code of the same command in this process: most of the time of a process goes into loading torch."""
    return run_command(app, [str(argument) for argument in arguments], "dpdy")


def run_and_kill(run: Path, stage: str, step: int) -> None:
    """Resume `run` and SIGKILL it once `stage` has reported `step`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dpdy_core", "run", str(run), "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("stage") == stage and event["event"] == "step" and event["step"] >= step:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"{stage} ended before step {step}"
