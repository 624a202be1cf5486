"""The stages of a job as its row and the API show them, and progress and time left over all of them."""

from datetime import UTC, datetime
from typing import Any

from dpdy_core.config import STAGES

StageRow = dict[str, Any]

# rough shares of the time of a run
WEIGHTS = {
    "ingest": 0.02,
    "masks": 0.03,
    "cameras": 0.05,
    "depth": 0.05,
    "prior": 0.2,
    "scene": 0.5,
    "render": 0.1,
    "evaluate": 0.05,
}
RENDER_STAGES = ("render",)


def fresh_stages(kind: str) -> list[StageRow]:
    """The stages of a new job: all of them, or `render` alone."""
    return [_pending(name) for name in (STAGES if kind == "train" else RENDER_STAGES)]


def _pending(name: str) -> StageRow:
    return {
        "name": name,
        "state": "pending",
        "progress": 0.0,
        "step": None,
        "total": None,
        "started_at": None,
        "finished_at": None,
    }


def reset_unfinished(stages: list[StageRow]) -> list[StageRow]:
    """The stages as the next attempt finds them: what is done stays done."""
    return [dict(stage) if stage["state"] == "done" else _pending(stage["name"]) for stage in stages]


def close_running(stages: list[StageRow], state: str) -> list[StageRow]:
    """The stages after the end of a job: the one that ran ends in `state`."""
    return [{**stage, "state": state} if stage["state"] == "running" else dict(stage) for stage in stages]


def overall_progress(stages: list[StageRow]) -> float:
    """Share of the whole work that is done, 0..1."""
    total = sum(WEIGHTS[stage["name"]] for stage in stages)
    return round(sum(WEIGHTS[stage["name"]] * stage["progress"] for stage in stages) / total, 4)


def overall_eta(stages: list[StageRow], stage_eta: float | None, elapsed: float, begun_at: float) -> float | None:
    """Seconds left: the current stage's own estimate, and the later stages at this attempt's pace so far.

    `elapsed`: seconds of this attempt. `begun_at`: the overall progress with which it began.
    """
    gained = overall_progress(stages) - begun_at
    if gained < 0.02 or elapsed <= 0:
        return None
    total = sum(WEIGHTS[stage["name"]] for stage in stages)
    later = sum(WEIGHTS[stage["name"]] for stage in stages if stage["state"] == "pending") / total
    current = sum(WEIGHTS[s["name"]] * (1 - s["progress"]) for s in stages if s["state"] == "running") / total
    pace = elapsed / gained
    return round((stage_eta if stage_eta is not None else current * pace) + later * pace, 1)


def timestamp(time: datetime | None) -> str | None:
    """RFC 3339 in UTC, as the API writes times."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None
