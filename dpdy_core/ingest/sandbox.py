"""Reading a stranger's file in a child process: no network, limits on memory, time and disk. Torch-free.

`confined(function, ...)` is a call of `function` that cannot hurt: the child (`child.py`) confines itself
(`confine.py`) before it imports a decoder. What it sends back is not trusted either: only known events pass.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import dpdy_core
from dpdy_core.errors import BadInput, BadSettings, CamerasFailed, DpdyError, JobFailed, OutOfMemory
from dpdy_core.progress import Event, Reporter

SCRATCH = ".scratch."  # prefix of the folder for a child's temporary files; its parent removes it
MAX_LINE_BYTES = 16 * 2**20
_POLL_SECONDS = 0.2
_ERRORS = {kind.type: kind for kind in (BadInput, CamerasFailed, BadSettings, JobFailed, OutOfMemory)}
_REMEDY = "cut or scale it down, or convert it to H.264 mp4 or PNG frames"


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    memory: int = 4 * 2**30  # bytes
    seconds: int = 2 * 60 * 60  # of wall clock
    file_bytes: int = 4 * 2**30  # of one written file

    @classmethod
    def from_environment(cls) -> "Limits":
        """The defaults, or what DPDY_DECODE_MEMORY_BYTES, DPDY_DECODE_SECONDS and DPDY_DECODE_FILE_BYTES say."""
        given = {}
        for key, name in (("memory", "MEMORY_BYTES"), ("seconds", "SECONDS"), ("file_bytes", "FILE_BYTES")):
            if text := os.environ.get(f"DPDY_DECODE_{name}", ""):
                if not text.isdecimal() or int(text) == 0:
                    raise BadSettings(f"DPDY_DECODE_{name} is {text!r}", "give a whole number above 0")
                given[key] = int(text)
        return cls(**given)


def confined(
    function: Callable[..., Any],
    *arguments: Any,
    reporter: Reporter | None = None,
    limits: Limits | None = None,
    scratch: Path | None = None,
) -> Any:
    """`function(*arguments)` in a confined child; its result as JSON gives it back.

    `function` is at the top of its module; arguments are plain values, paths, or a Reporter: the child's own, whose
    events `reporter` (None: that argument) hears and which it can stop. Temporary files go into a folder inside
    `scratch` (None: the system's) that is gone afterwards. What `function` raises as DpdyError is raised here; a child
    that dies of the file is a BadInput.
    """
    limits = limits or Limits.from_environment()
    reporter = reporter or next((a for a in arguments if isinstance(a, Reporter)), Reporter())
    request = {
        "function": [function.__module__, function.__qualname__],
        "arguments": [_encoded(argument) for argument in arguments],
        "limits": {"parent": os.getpid(), **asdict(limits)},
    }
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch, ignore_cleanup_errors=True) as folder,
        _child(request, folder) as (process, events),
    ):
        return _listen(process, events, reporter, limits)


def _encoded(argument: Any) -> Any:
    if isinstance(argument, Path):
        return {"path": str(argument.absolute())}
    return {"reporter": True} if isinstance(argument, Reporter) else {"value": argument}


@contextmanager
def _child(request: dict[str, Any], folder: str) -> Iterator[tuple[subprocess.Popen[bytes], "queue.Queue[bytes]"]]:
    """The running child and the lines it writes, an empty one at their end; all of its group is gone afterwards."""
    code = os.pathsep.join([str(Path(dpdy_core.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": code, "TMPDIR": folder, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "4"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dpdy_core.ingest.child", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | settings,
        start_new_session=True,
    )
    lines: queue.Queue[bytes] = queue.Queue(maxsize=1000)
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while reader.is_alive():  # it may wait for room
            with suppress(queue.Empty):
                lines.get(timeout=0.05)


def _read(stream: IO[bytes] | None, lines: "queue.Queue[bytes]") -> None:
    if stream is not None:
        with stream:
            while line := stream.readline(MAX_LINE_BYTES):
                lines.put(line)
    lines.put(b"")


def _listen(process: subprocess.Popen[bytes], lines: "queue.Queue[bytes]", reporter: Reporter, limits: Limits) -> Any:
    """Relay the child's events until its result; raises what ended it."""
    ends_at = time.monotonic() + limits.seconds
    while True:
        reporter.check()
        if time.monotonic() > ends_at:
            raise _too_slow(limits)
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if not line:
            break
        event = _parsed(line)
        if event.get("event") == "result":
            return event.get("value")
        if event.get("event") == "problem":
            raise _ERRORS.get(str(event.get("type")), JobFailed)(str(event.get("detail")), str(event.get("remedy", "")))
        _relay(event, reporter)
    raise _death(process.wait(), limits)


def _parsed(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _relay(event: Event, reporter: Reporter) -> None:
    message = event.get("message")
    match event.get("event"):
        case "step" if isinstance(event.get("step"), int) and isinstance(event.get("total"), int):
            reporter.step(event["step"], event["total"])
        case "warning" if isinstance(message, str):
            reporter.warn(message)
        case "fallback" if isinstance(message, str):
            reporter.fall_back(message)


def _death(code: int, limits: Limits) -> DpdyError:
    """Why a child without a result ended."""
    if code == -signal.SIGXCPU:
        return _too_slow(limits)
    if -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # no decoder does that to itself
        return OutOfMemory("reading the file was killed from outside", "look whether the machine is short of memory")
    if code < 0:
        return BadInput(f"reading the file crashed the decoder ({signal.Signals(-code).name})", _REMEDY)
    return JobFailed(f"reading the file ended with exit code {code}", "the log tells more; report it")


def _too_slow(limits: Limits) -> BadInput:
    return BadInput(f"reading the file took more than the limit of {limits.seconds} s", _REMEDY)


def too_much_memory(memory: int) -> BadInput:
    """The child's own words when its memory runs out."""
    return BadInput(f"reading the file takes more than the limit of {memory / 2**30:.3g} GiB of memory", _REMEDY)
