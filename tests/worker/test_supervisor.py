import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.jobs.uploads import child_environment
from api.settings import Settings
from worker.supervisor import Outcome, Stop, supervise

SETTINGS = Settings()


def run(code: str, stop: Stop | None = None, after: float = 0.3, grace: float = 1.0) -> tuple[Outcome, list, list]:
    """Supervise a Python script; `stop` is wanted `after` seconds after its first event."""
    events: list[dict[str, Any]] = []
    lines: list[str] = []
    begun: list[float] = []

    def wanted() -> Stop | None:
        if events and not begun:
            begun.append(time.monotonic())
        return stop if begun and time.monotonic() - begun[0] > after else None

    command = [sys.executable, "-c", code]
    return supervise(command, events.append, lines.append, wanted, grace, child_environment(SETTINGS)), events, lines


READY = 'import sys,time,signal,os,json\nprint(\'{"event": "start"}\', flush=True)\n'


def test_relays_events_and_lines() -> None:
    code = READY + "print('plain'); print('[1]'); sys.stderr.write('caf\\u00e9\\nno end'); sys.exit(3)"
    outcome, events, lines = run(code)
    assert (outcome.code, outcome.stop) == (3, None)
    assert events == [{"event": "start"}]
    assert sorted(lines) == sorted(["plain", "[1]", "café", "no end"])


def test_binary_noise_and_endless_lines_do_no_harm() -> None:
    code = (
        READY + "sys.stdout.buffer.write(b'\\xff\\xfe{\\n' + b'x' * 3_000_000 + b'\\n'); print('{\"event\": \"done\"}')"
    )
    outcome, events, _ = run(code)
    assert outcome.code == 0
    assert [event["event"] for event in events] == ["start", "done"]


def test_a_faulty_handler_does_not_block_the_child() -> None:
    def fault(_: dict[str, Any]) -> None:
        raise ValueError

    code = 'for i in range(6000): print(\'{"event": "step"}\')'
    assert supervise([sys.executable, "-c", code], fault, lambda _: None, lambda: None, 1.0, {}).code == 0


@pytest.mark.parametrize("reason", ["cancel", "yield", "deadline"])
def test_asks_first(reason: Stop) -> None:
    outcome, _, _ = run(READY + "signal.signal(15, lambda *_: sys.exit(5))\ntime.sleep(60)", reason)
    assert (outcome.code, outcome.stop) == (5, reason)
    assert outcome.seconds < 10


def test_kills_what_does_not_listen() -> None:
    outcome, _, _ = run(READY + 'signal.signal(15, signal.SIG_IGN)\nprint(\'{"event":"x"}\')\ntime.sleep(60)', "cancel")
    assert (outcome.code, outcome.stop) == (-signal.SIGKILL, "cancel")


def test_a_lost_attempt_is_killed_at_once() -> None:
    code = READY + "signal.signal(15, lambda *_: sys.exit(5))\ntime.sleep(60)"
    outcome, _, _ = run(code, "lost", grace=30)
    assert (outcome.code, outcome.stop) == (-signal.SIGKILL, "lost")


def test_death_is_seen_at_once_and_grandchildren_go_too() -> None:
    code = READY + (
        "import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        "print(json.dumps({'event': 'child', 'pid': child.pid}), flush=True)\nos.kill(os.getpid(), 9)"
    )
    started = time.monotonic()
    outcome, events, _ = run(code)  # the grandchild holds the pipes open
    assert outcome.code == -signal.SIGKILL
    assert "SIGKILL" in outcome.crash
    assert time.monotonic() - started < 10
    deadline = time.monotonic() + 5
    while _alive(events[1]["pid"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(events[1]["pid"])


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_child_has_a_group_of_its_own_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DPDY_DATABASE_URL", "DPDY_BROKER_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "secret")
    code = READY + "print(json.dumps({'event': 'env', 'all': str(dict(os.environ)), 'group': os.getpgid(0)}))"
    _, events, _ = run(code)
    assert "secret" not in events[1]["all"]
    assert "'DPDY_DECODE_SECONDS': '7200'" in events[1]["all"]
    assert events[1]["group"] != os.getpgid(0)


def test_what_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(FileNotFoundError):
        supervise([str(tmp_path / "nothing")], lambda _: None, lambda _: None, lambda: None, 1.0, {})
    assert threading.active_count() == before
