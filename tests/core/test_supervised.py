"""A child follows the pulse of its supervisor: real processes, pipes and signals."""

import signal
import subprocess
import sys
import time

import pytest

CHILD = """
import signal, sys, time
from dpdy_core.supervised import follow_pulse
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
follow_pulse(0.6)
print("ready", flush=True)
time.sleep(60)
"""


def child(kind: str = "") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_it_lives_as_long_as_the_pulse_and_stops_when_it_stops() -> None:
    with child() as process:
        assert process.stdin is not None
        for _ in range(12):
            process.stdin.write(b".")
            process.stdin.flush()
            time.sleep(0.1)
        assert process.poll() is None
        assert process.wait(10) == 5


def test_it_stops_when_the_pipe_closes() -> None:
    with child() as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 5


@pytest.mark.parametrize("pulses", [0, 3])
def test_a_deaf_one_is_killed(pulses: int) -> None:
    with child("deaf") as process:
        assert process.stdin is not None
        for _ in range(pulses):
            process.stdin.write(b".")
            process.stdin.flush()
            time.sleep(0.1)
        assert process.wait(10) == -signal.SIGKILL


def test_it_shows_its_stacks() -> None:
    with child() as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(10) == 5
        assert process.stderr is not None
        assert b"most recent call first" in process.stderr.read()
