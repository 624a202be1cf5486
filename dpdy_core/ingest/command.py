"""`dpdy inspect`: the capture report, before any training."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from dpdy_core.ingest.forecast import DEVICES, forecast
from dpdy_core.ingest.sandbox import confined
from dpdy_core.presets import PRESETS
from dpdy_core.progress import Reporter, console


def inspect(
    capture: Annotated[Path, typer.Argument(metavar="VIDEO_OR_CAPTURE")],
    cameras: Annotated[
        bool, typer.Option("--cameras", help="Look for the cameras too, at small size: minutes.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="DIR", help="Write pictures of what was found.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Judge a video or capture before any training: will it work, and what would make it better.

    Example: dpdy inspect video.mp4 --cameras --pictures look
    """
    reporter = Reporter(console())
    if cameras:
        report = _with_cameras(capture, pictures, reporter)
    else:
        from dpdy_core.ingest.inspect import inspect_input

        report = confined(inspect_input, capture, pictures, reporter=reporter)
        report["forecast"] = forecast(report)
    if as_json:
        sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")


def _with_cameras(capture: Path, pictures: Path | None, reporter: Reporter) -> dict[str, Any]:
    from dpdy_core.ingest.pictures import pictures_of
    from dpdy_core.ingest.rehearsal import rehearse  # loads torch and pycolmap
    from dpdy_core.ingest.tiles import write_pictures

    with tempfile.TemporaryDirectory(prefix="dpdy-inspect.") as scratch:
        report = rehearse(capture, Path(scratch), pictures is not None, reporter)
        if pictures is not None:
            write_pictures(pictures, pictures_of(Path(scratch) / "capture"))
    return report


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for people: the verdict, why, the facts, the price."""
    length = f", {report['duration']:.1f} s" if report["duration"] else ""
    rate = f" at {report['fps']:.4g} a second" if report["fps"] else ""
    lines = [
        f"{report['verdict'].upper()}: {report['frames']} frames of {report['width']}x{report['height']}{rate}{length}",
        *(f"  {reason['verdict']}: {reason['what']}; {reason['remedy']}" for reason in report["reasons"]),
        *(f"  note: {note}" for note in report["notes"]),
        "",
    ]
    lines += [f"{name:<20}{value}" for name, value in _measures(report)]
    lines += ["", f"a run takes about ({report['forecast']['note']})"]
    for preset in PRESETS:
        costs = report["forecast"][preset]
        each = (f"{d}: {duration(costs[d]['seconds'])}, {costs[d]['memory_gib']:g} GiB" for d in DEVICES)
        lines.append(f"  {preset:<18}{'; '.join(each)}")
    return lines


def _measures(report: dict[str, Any]) -> list[tuple[str, str]]:
    motion, sharp, light, found = report["motion"], report["sharpness"], report["brightness"], report["cameras"]
    moving = "unknown" if motion["moving_share"] is None else f"{motion['moving_share']:.0%} of the pixels"
    rows = [
        ("blurred", f"{sharp['blurred_share']:.0%} of the frames (sharpness {sharp['median']:.0f})"),
        ("brightness", f"{light['median']:.0%}, jumps by up to {light['largest_jump']:.0%}"),
        ("hang together", f"{motion['linked_share']:.0%} of the frames"),
        ("picture moves", f"{motion['moved']:.1%} of its size, parallax {motion['parallax']:.2%}"),
        ("things move", moving),
    ]
    if found is not None:
        rows.append(("cameras found", f"{found['registered_share']:.0%}"))
        named = (
            ("reprojection error", "reprojection_error_px", " pixels"),
            ("multi-view factor", "multi_view_factor", " deg/s"),
        )
        rows += [(name, f"{found[key]:.2f}{unit}") for name, key, unit in named if found.get(key) is not None]
    return rows


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, without false precision."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
