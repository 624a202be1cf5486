"""Progress and results for people: live bars on a terminal, plain lines elsewhere, always on stderr."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

PLAIN_SECONDS = 5.0  # between two plain lines of one stage
METRICS = ("psnr", "ssim", "ms_ssim", "lpips")
REGIONS = ("covisible", "moving")


class Display:
    """Shows an upload, a job's stages, and a download. Use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}"),
            console=self._console,
            disable=not self._live,
        )
        self._rows: dict[str, TaskID] = {}
        self._said: dict[str, tuple[str, float]] = {}
        self._notes = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """One line that stays."""
        self._console.print(message, markup=False, soft_wrap=True)

    def transfer(self, name: str, done: int, total: int) -> None:
        """Bytes sent or received so far."""
        detail = f"{_bytes(done)} / {_bytes(total)}"
        self._show(name, done / max(total, 1), detail, "done" if done >= total else "running")

    def job(self, job: dict[str, Any]) -> None:
        """The state of a job; call with every new version of it."""
        notes = (job.get("warnings") or [])[self._notes :]
        for note in notes:
            self.say(f"note: {note}")
        self._notes += len(notes)
        if job["state"] == "queued":
            place = job.get("queue_position")
            self._show("queued", 0.0, f"place {place} in the queue" if place else "waiting for a worker", "queued")
        for stage in job.get("stages") or []:
            if stage["state"] == "pending":
                continue
            current = stage["name"] == job.get("stage") and job["state"] == "running"
            self._show(
                stage["name"], stage.get("progress") or 0.0, _detail(stage, job if current else {}), stage["state"]
            )

    def _show(self, name: str, share: float, detail: str, state: str) -> None:
        if self._live:
            if name not in self._rows:
                self._rows[name] = self._progress.add_task(name, total=1.0, detail=detail)
            self._progress.update(self._rows[name], completed=share, detail=detail)
            return
        before, when = self._said.get(name, ("", 0.0))
        now = time.monotonic()
        if state != before or (state == "running" and now - when >= PLAIN_SECONDS):
            self._said[name] = (state, now)
            self.say(f"{name:<9} {state:<9} {share:4.0%}  {detail}".rstrip())


def metrics_table(metrics: dict[str, Any]) -> Table:
    """The mean metrics: one row a metric, one column a region of the image; a dash where there is no value."""
    mean = metrics.get("mean") or metrics
    regions = [region for region in REGIONS if isinstance(mean.get(region), dict)]
    table = Table(title="held-out views", title_justify="left")
    table.add_column("metric")
    for column in ("all pixels", *regions):
        table.add_column(column, justify="right")
    for name in METRICS:
        if name in mean:
            table.add_row(name, _number(mean[name]), *(_number(mean[region].get(name)) for region in regions))
    return table


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _detail(stage: dict[str, Any], job: dict[str, Any]) -> str:
    steps = f"{stage['step']}/{stage['total']}" if stage.get("total") else ""
    eta = job.get("eta_seconds")
    return "  ".join(part for part in (steps, f"eta {clock(eta)}" if eta is not None else "") if part)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"
