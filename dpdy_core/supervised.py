"""How a run is stopped: signals ask it to checkpoint, and a supervised child does not outlive its supervisor."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from dpdy_core.errors import Cancelled, DpdyError
from dpdy_core.progress import Event, Reporter, Sink, json_lines

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 30.0


def die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends (Linux; elsewhere the closed pipe stops the run)."""
    parent = os.getppid()
    if hasattr(ctypes, "CDLL") and os.uname().sysname == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended between the two lines
        os.kill(os.getpid(), signal.SIGTERM)


def pipe_sink(stream: IO[str], reporter: Reporter) -> Sink:
    """JSON lines to the supervisor's pipe; when nobody reads it any more the run stops at its next step."""
    write = json_lines(stream)
    closed = False

    def sink(event: Event) -> None:
        nonlocal closed
        if closed:
            return
        try:
            write(event)
        except BrokenPipeError:
            closed = True
            reporter.request_stop()

    return sink


@contextmanager
def stop_on_signals(reporter: Reporter) -> Iterator[None]:
    """SIGTERM and SIGINT stop the run at its next step, after a checkpoint; an expected failure is also an event.

    After SIGINT the block ends with KeyboardInterrupt (exit 130), after SIGTERM with Cancelled (exit 5).
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        reporter.request_stop()
        if len(received) == 1:  # a step that hangs must not keep the device
            timer = threading.Timer(GRACE_SECONDS, os._exit, args=(Cancelled.exit_code,))
            timer.daemon = True
            timer.start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except Cancelled as error:
        reporter.emit("problem", **error.problem())
        if signal.SIGINT in received:
            raise KeyboardInterrupt from error
        raise
    except DpdyError as error:
        reporter.emit("problem", **error.problem())
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
