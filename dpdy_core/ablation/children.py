"""Several runs at once, each in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dpdy_core.progress import read_events
from dpdy_core.rundir import RunDir

POLL_SECONDS = 0.1
LOG_TAIL = 400  # characters of a crashed child's log that are told


@dataclass(frozen=True)
class Work:
    """A run folder with its config written, to be taken up to stage `until`; `prepare` is called before it starts."""

    run: RunDir
    until: str
    prepare: Callable[[], None] = lambda: None


def run_all(work: list[Work], jobs: int, check: Callable[[], None]) -> Iterator[tuple[Work, str | None]]:
    """Run `work`, `jobs` processes at once; yields each as it ends, with the reason if it failed.

    `check` is called all the time and may raise to stop: the children then checkpoint and end.
    """
    waiting = list(reversed(work))
    running: dict[subprocess.Popen[bytes], Work] = {}
    try:
        while waiting or running:
            check()
            while waiting and len(running) < jobs:
                one = waiting.pop()
                one.prepare()
                running[_start(one)] = one
            for process in [p for p in running if p.poll() is not None]:
                one = running.pop(process)
                yield one, None if process.returncode == 0 else _reason(one.run, process.returncode)
            time.sleep(POLL_SECONDS)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _start(work: Work) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dpdy_core", "run", str(work.run.root), "--supervised", "--until", work.until]
    with _log(work.run).open("wb") as log:  # its own session: Ctrl-C reaches it through us, once
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _log(run: RunDir) -> Path:
    return run.root / "run.log"


def _reason(run: RunDir, code: int) -> str:
    """Why a child ended badly: the problem it reported, else the end of its log."""
    problems = [event for event in read_events(run.events_file) if event["event"] == "problem"]
    if problems and code in (2, 3, 4, 5):
        return str(problems[-1]["detail"])
    said = _log(run).read_text(encoding="utf-8", errors="replace").strip()
    return f"exit code {code}: {json.dumps(said[-LOG_TAIL:])[1:-1]}"
