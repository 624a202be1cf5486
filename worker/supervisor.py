"""One child process per attempt, in its own process group: start it, relay its lines, stop it, say how it ended.

Exit codes are those of docs/architecture.md. The child holds no credentials. Its standard input is a pipe with a pulse:
when this process dies the pipe closes, when this process is frozen the pulse stops, and in both cases the child ends by
itself (`dpdy_core.supervised`). So no two attempts of a job work at one time.
"""

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

from api.logs import carrying

log = logging.getLogger(__name__)

Stop = Literal["cancel", "yield", "deadline", "stall", "full", "lost"]
POLL_SECONDS = 0.1
PULSE_SECONDS = 0.25
TRACE_SECONDS = 1.0  # for the stacks of a stalled run to reach its log
LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code (negative: killed by that signal), and why it was asked to stop, if it was."""

    code: int
    stop: Stop | None
    seconds: float

    @property
    def crash(self) -> str:
        """In words, for an exit that nobody asked for."""
        if self.code < 0:
            return f"the run was killed by {signal.Signals(-self.code).name}"
        return f"the run ended with exit code {self.code}"


def supervise(
    command: list[str],
    on_event: Callable[[dict[str, Any]], None],
    on_line: Callable[[str], None],
    wanted_stop: Callable[[], Stop | None],
    grace_seconds: float,
    environment: dict[str, str],
    keep_open: tuple[int, ...] = (),
) -> Outcome:
    """Run `command` to its end. JSON lines on its stdout go to `on_event`, all other lines to `on_line`.

    `wanted_stop` is asked ten times a second; once it answers, the child's group gets SIGTERM (`lost`: SIGKILL at once)
    and, `grace_seconds` later, SIGKILL; a stalled child writes its stacks to the log before (SIGUSR1). Nothing of the
    group is left when this returns. Raises OSError if it cannot be started. `environment` is all that the child sees
    of ours, besides the descriptors in `keep_open`.
    """
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        pass_fds=keep_open,
    )
    readers = [
        threading.Thread(
            target=carrying(_read_lines), args=(child.stdout, _event_or_line(on_event, on_line)), daemon=True
        ),
        threading.Thread(target=carrying(_read_lines), args=(child.stderr, on_line), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        stop = _wait(child, wanted_stop, grace_seconds)
    finally:
        _signal_group(child, signal.SIGKILL)  # whatever the child left behind
        code = child.wait()
        for reader in readers:
            reader.join(timeout=5)
    return Outcome(code, stop, time.monotonic() - started)


def _wait(child: subprocess.Popen[bytes], wanted_stop: Callable[[], Stop | None], grace_seconds: float) -> Stop | None:
    stop: Stop | None = None
    kill_at = float("inf")
    with _Pulse(child.stdin) as pulse:
        while child.poll() is None:
            pulse.beat()
            if stop != "lost" and (wanted := wanted_stop()) and wanted != stop and (stop is None or wanted == "lost"):
                stop = wanted
                if stop == "stall":
                    child.send_signal(signal.SIGUSR1)
                    time.sleep(TRACE_SECONDS)
                _signal_group(child, signal.SIGKILL if stop == "lost" else signal.SIGTERM)
                kill_at = min(kill_at, time.monotonic() + grace_seconds)
            if time.monotonic() >= kill_at:
                _signal_group(child, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                child.wait(POLL_SECONDS)
    return stop


class _Pulse:
    """Tells the child that its supervisor lives; a child that does not listen does not block it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        self._pipe = pipe
        self._beaten = float("-inf")
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)

    def __enter__(self) -> "_Pulse":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.close()

    def beat(self) -> None:
        if self._pipe is not None and time.monotonic() - self._beaten >= PULSE_SECONDS:
            self._beaten = time.monotonic()
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._pipe.fileno(), b".")


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def _event_or_line(on_event: Callable[[dict[str, Any]], None], on_line: Callable[[str], None]) -> Callable[[str], None]:
    def relay(line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            on_event(event)
        elif line.strip():
            on_line(line)

    return relay


def _read_lines(stream: IO[bytes] | None, handle: Callable[[str], None]) -> None:
    """Hand over each line until the stream ends; a handler's fault must not block the child's pipe."""
    if stream is None:
        return
    with stream:
        while line := stream.readline(LONGEST_LINE):
            try:
                handle(line.decode(errors="replace").rstrip("\n"))
            except Exception as error:
                log.warning("a line of the run was not understood (%r): %.200r", error, line)
