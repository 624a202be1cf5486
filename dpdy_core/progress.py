"""Progress of a run: one event a line. The core reports, sinks listen (file, console, pipe); the worker reads it back.

An event is a flat JSON object with `time` (RFC 3339 UTC) and `event`, one of
`start step done skip warning fallback preview problem finished`, and mostly `stage`.
A `step` has `step`, `total`, `eta_seconds`, `progress` (of the stage, 0..1) and `numbers`.
"""

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from dpdy_core.errors import Cancelled

Event = dict[str, Any]
Sink = Callable[[Event], None]


class Reporter:
    """Hands events to its sinks and stops the run when asked to."""

    def __init__(self, *sinks: Sink, interval: float = 0.5) -> None:
        """`interval`: least seconds between two `step` events of one stage; the first and the last always pass."""
        self._sinks = list(sinks)
        self._interval = interval
        self._stop = threading.Event()
        self._stage = ""
        self._started = self._reported = 0.0
        self._first_step: int | None = None

    def add_sink(self, sink: Sink) -> None:
        """Send later events to `sink` too."""
        self._sinks.append(sink)

    def request_stop(self) -> None:
        """Make the next `step` or `check` raise Cancelled. Safe to call from a signal handler."""
        self._stop.set()

    def check(self) -> None:
        """Raise Cancelled if a stop was requested."""
        if self._stop.is_set():
            raise Cancelled("stopped on request", "run again with the same folder to continue")

    def emit(self, event: str, **fields: Any) -> None:
        """Send one event of the current stage to all sinks."""
        record: Event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
        record["event"] = event
        if self._stage:
            record["stage"] = self._stage
        record.update(fields)
        for sink in self._sinks:
            sink(record)

    def start(self, stage: str) -> None:
        """Enter `stage`."""
        self._stage = stage
        self._started = time.monotonic()
        self._reported = -math.inf
        self._first_step = None
        self.emit("start")
        self.check()

    def step(self, step: int, total: int, **numbers: float) -> None:
        """Report that `step` of `total` is done. Raises Cancelled if a stop was requested."""
        self.check()
        now = time.monotonic()
        if self._first_step is None:
            self._first_step = step - 1  # a resumed loop starts in the middle: its rate counts from there
        if step < total and now - self._reported < self._interval:
            return
        self._reported = now
        done = max(step - self._first_step, 1)
        self.emit(
            "step",
            step=step,
            total=total,
            progress=round(step / max(total, 1), 4),
            eta_seconds=round((now - self._started) / done * (total - step), 1),
            numbers={key: _finite(value) for key, value in numbers.items()},
        )

    def due(self) -> bool:
        """Whether a `step` event would pass now: compute costly numbers only then."""
        return time.monotonic() - self._reported >= self._interval

    def done(self, **numbers: Any) -> None:
        """Leave the current stage."""
        self.emit("done", seconds=round(time.monotonic() - self._started, 2), numbers=numbers)

    def skip(self, stage: str) -> None:
        """`stage` was finished before."""
        self._stage = stage
        self.emit("skip")

    def warn(self, message: str) -> None:
        """Something a user should know; shown in the log, the job and the report."""
        self.emit("warning", message=message)

    def fall_back(self, message: str) -> None:
        """Something was replaced by a lesser thing; shown in the log, the job and the report."""
        self.emit("fallback", message=message)

    def preview(self, path: str) -> None:
        """A preview picture was written; `path` is relative to the run folder."""
        self.emit("preview", path=path)


def _finite(value: float) -> float | None:
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


def json_lines(stream: IO[str]) -> Sink:
    """A sink that writes each event as one flushed JSON line. BrokenPipeError means that nobody listens any more."""

    def sink(event: Event) -> None:
        stream.write(json.dumps(event, allow_nan=False) + "\n")
        stream.flush()

    return sink


def append_file(path: Path) -> Sink:
    """A sink that appends each event to a JSON-lines file."""

    def sink(event: Event) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, allow_nan=False) + "\n")

    return sink


def read_events(path: Path) -> list[Event]:
    """The events in a JSON-lines file; a torn last line (killed writer) is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events


def console(stream: IO[str] | None = None, seconds: float = 0.0) -> Sink:
    """A sink for people: one rewritten line a stage on a terminal, plain lines elsewhere, steps `seconds` apart."""
    out = stream or sys.stderr
    live = out.isatty()
    written = -math.inf

    def sink(event: Event) -> None:
        nonlocal written
        stage = f"{event.get('stage', ''):<9}"
        match event["event"]:
            case "step" if time.monotonic() - written < seconds:
                return
            case "step":
                written = time.monotonic()
                numbers = "  ".join(f"{k} {v:.4g}" for k, v in event["numbers"].items() if v is not None)
                line = f"{stage}{event['step']:>6}/{event['total']:<6} eta {_clock(event['eta_seconds'])}  {numbers}"
                out.write(f"\r\x1b[2K{line}" if live else f"{line}\n")
            case "done":
                out.write(("\r\x1b[2K" if live else "") + f"{stage}done in {_clock(event['seconds'])}\n")
            case "skip":
                out.write(f"{stage}already done\n")
            case "warning" | "fallback":
                out.write(("\r\x1b[2K" if live else "") + f"{stage}{event['event']}: {event['message']}\n")
            case _:
                return
        out.flush()

    return sink


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
