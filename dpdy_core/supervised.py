"""How a run is stopped: signals ask it to checkpoint, and a supervised child does not outlive its supervisor.

The supervisor writes a pulse into our standard input (worker/supervisor.py). If the pipe closes it has died: we
checkpoint and stop. If the pulse stops it is frozen, and another worker will take the run over: we are gone by then.
"""

import ctypes
import faulthandler
import os
import select
import signal
import sys
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
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended between the two lines
        os.kill(os.getpid(), signal.SIGTERM)


def follow_pulse(silence_seconds: float) -> None:
    """Stop as on SIGTERM when standard input closes, or brings nothing for so long; SIGKILL after half as long again.

    SIGUSR1 now writes the stacks of all threads to standard error.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    threading.Thread(target=_feel_pulse, args=(silence_seconds,), name="pulse", daemon=True).start()


def _feel_pulse(silence_seconds: float) -> None:
    asked = False
    while True:
        readable, _, _ = select.select([0], [], [], silence_seconds / 2 if asked else silence_seconds)
        if readable and os.read(0, 4096):
            asked = False
        elif readable or not asked:
            os.kill(os.getpid(), signal.SIGTERM)
            if readable:
                return
            asked = True
        else:
            os.kill(os.getpid(), signal.SIGKILL)


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
