"""`report.html`: one page that says what a run made, how good it is, what it cost and where it fell back."""

import base64
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from dpdy_core.config import PATH_NAMES, STAGES
from dpdy_core.ingest.pictures import pictures_of
from dpdy_core.ingest.tiles import jpeg
from dpdy_core.output.curve import curve_svg
from dpdy_core.output.scores import METRICS, REGIONS
from dpdy_core.output.views import PARTS, part_file
from dpdy_core.progress import Event, read_events
from dpdy_core.rundir import RunDir, read_json, write_atomic

PICTURE_SIDE = 1280  # longer side of inlined pictures, pixels
LOOKS = {
    "masks": "motion masks",
    "depth": "depth, near red, far blue, none black",
    "cameras": "the training cameras from above, the first marked, and the points they saw",
}
MOST_VIEWS = 6  # held-out views shown as pictures


def write_report(run: RunDir) -> None:
    """Write the run's report from what is there; a missing piece (no test views, no record) leaves its section out."""
    page = Environment(loader=PackageLoader("dpdy_core.output", "."), autoescape=True)
    page.filters.update(number=_number, clock=_clock, mebibytes=_mebibytes)
    config = read_json(run.config_file)
    events = read_events(run.events_file)
    metrics = _optional(run.metrics_file)
    text = page.get_template("report.html").render(
        name=run.root.resolve().name,
        source=Path(config["source"]).name,
        environment=config["environment"],
        preset=config["settings"]["preset"],
        settings=_flat(config["settings"]),
        videos=_videos(run),
        metrics=metrics,
        rows=_metric_rows(metrics) if metrics and metrics["views"] else [],
        pictures=_pictures(run),
        curves={stage: _curves(events, stage) for stage in ("scene", "prior")},
        stages=_stages(run, events),
        messages=_messages(events),
        judged=_optional(run.capture_report_file) or {},
        capture=_facts_of_capture(run) | _found(events),
        looks=_looks(run),
    )
    write_atomic(run.report_file, lambda partial: _write(partial, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _optional(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _inlined(path: Path) -> str:
    """The picture as a data URL, shrunk where it is large."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        return ""
    scale = min(1.0, PICTURE_SIDE / max(picture.shape[:2]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _videos(run: RunDir) -> list[dict[str, Any]]:
    """The finished paths, the named ones first: poster and relative links."""
    names = [p.stem for p in run.renders.glob("*.json") if p.with_suffix(".mp4").exists()]
    order = {name: place for place, name in enumerate(PATH_NAMES)}
    found = []
    for name in sorted(names, key=lambda n: (order.get(n, len(order)), n)):
        video = run.renders / f"{name}.mp4"
        links = {part.lstrip("_") or "colour": part_file(video, part) for part in PARTS}
        found.append(
            {
                "name": name,
                "poster": _inlined(run.previews / f"{name}.jpg"),
                "links": {k: v.relative_to(run.root).as_posix() for k, v in links.items() if v.exists()},
            }
        )
    return found


def _pictures(run: RunDir) -> list[dict[str, str]]:
    files = sorted((run.evaluation / "images").glob("*.jpg"))
    files = files[:: max(1, -(-len(files) // MOST_VIEWS))]
    return [{"name": file.stem, "data": _inlined(file)} for file in files]


def _facts_of_capture(run: RunDir) -> dict[str, Any]:
    """The capture report without what the page tells elsewhere, in a flat table."""
    flat = _flat(_optional(run.capture_report_file) or {})
    told = ("looked_at", "sharpness.frames", "forecast", "reasons", "warnings", "verdict", "notes")
    return {key: value for key, value in flat.items() if not key.startswith(told)}


def _found(events: list[Event]) -> dict[str, float]:
    """The last value of every number that the stages before training reported: shares of what moves, has depth, ..."""
    found: dict[str, float | None] = {}
    for event in events:
        if event.get("event") == "step" and event.get("stage") in ("masks", "cameras", "depth"):
            found |= {f"{event['stage']}.{key}": value for key, value in event.get("numbers", {}).items()}
    return {key: value for key, value in found.items() if value is not None}


def _looks(run: RunDir) -> list[dict[str, Any]]:
    """Masks, depth and camera path of the capture, as far as they are there."""
    if not run.transforms_file.exists():
        return []
    found = []
    for name, picture in pictures_of(run.capture).items():
        if isinstance(picture, str):
            found.append({"caption": LOOKS[name], "drawing": Markup(picture)})
        elif picture is not None:
            data = base64.b64encode(jpeg(picture)).decode()
            found.append({"caption": LOOKS[name], "data": f"data:image/jpeg;base64,{data}"})
    return found


def _metric_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a region: the mean scores of this run and of each baseline."""
    rows = []
    for key in (None, *REGIONS):
        sides = {"this run": metrics["mean"], **metrics.get("baselines", {})}
        for who, mean in sides.items():
            if key and key not in mean:
                continue  # scored before this region was
            scores, label = (mean[key], key) if key else (mean, "whole image")
            rows.append({"region": label, "who": who.replace("_", " "), "scores": scores, "own": who == "this run"})
    return [row for row in rows if any(row["scores"][m] is not None for m in METRICS)]


def _curves(events: list[Event], stage: str) -> list[Markup]:
    """One curve for each number that the stage reported at least twice; a resumed step replaces the first try."""
    series: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        if event.get("event") == "step" and event.get("stage") == stage:
            for key, value in event.get("numbers", {}).items():
                if value is not None:
                    series[key][event["step"]] = value
    return [Markup(curve_svg(key, sorted(points.items()))) for key, points in series.items() if len(points) > 1]


def _stages(run: RunDir, events: list[Event]) -> list[dict[str, Any]]:
    """Seconds and peak memory of each stage; a stage without a record yet is read from its events."""
    spent = {e["stage"]: e["seconds"] for e in events if e.get("event") == "done" and "stage" in e}
    rows = []
    for stage in STAGES:
        record = run.stage_record(stage) or {}
        seconds = record.get("seconds", spent.get(stage))
        if seconds is not None:
            rows.append({"name": stage, "seconds": seconds, "memory": record.get("peak_memory_bytes")})
    total = sum(row["seconds"] for row in rows) or 1.0
    return [{**row, "share": row["seconds"] / total} for row in rows]


def _messages(events: list[Event]) -> list[dict[str, str]]:
    """Warnings and fall-backs, each once, in order."""
    seen: dict[tuple[str, str, str], None] = {}
    for event in events:
        if event.get("event") in ("warning", "fallback"):
            seen[(event["event"], event.get("stage", ""), event["message"])] = None
    return [{"kind": kind, "stage": stage, "text": text} for kind, stage, text in seen]


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _mebibytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:,.0f} MiB"
