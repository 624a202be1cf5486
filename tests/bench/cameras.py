"""How well cameras are found without being told: registered share, pose and focal errors, seconds per stage.

`python -m tests.bench.cameras [--preset P] [--set KEY=VALUE]... CAPTURE...` solves each capture, a video or a folder of
images, as a run would. Where a nerfstudio `transforms.json` lies beside it (of a video) or above it (of a folder), the
result is compared with its poses, and with `--until depth` with its depth and motion masks too. Nothing here passes or
fails.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.config import STAGES
from dpdy_core.errors import CamerasFailed
from dpdy_core.geometry.similarity import Similarity, align_poses, umeyama
from dpdy_core.ingest.clip import frames_of, read_transforms
from dpdy_core.pipeline import run_pipeline
from dpdy_core.presets import resolve
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import RunDir
from tests.bench.depth_errors import COLUMNS as DEPTH_COLUMNS
from tests.bench.depth_errors import MASK_COLUMNS, depth_errors, mask_overlaps, true_frames

COLUMNS = ("capture", "train", "test", "centre %", "rotation", "centre % (centres)", "rotation (centres)", "relative",
           "focal", "seconds")  # fmt: skip


def truth_of(source: Path) -> dict[str, Any] | None:
    """The document with the true poses of `source`, if there is one."""
    found = source.parent / "transforms.json"
    return json.loads(found.read_text()) if found.is_file() else None


def places(truth: dict[str, Any], names: list[str]) -> list[int]:
    """Which frame of the truth each image is: by the number in a video frame's name, or by the name."""
    stems = {Path(frame["file_path"]).stem: i for i, frame in enumerate(true_frames(truth))}
    numbers = [re.fullmatch(r"frame_(\d{5})", Path(name).stem) for name in names]
    return [int(n[1]) if n else stems[Path(name).stem] for n, name in zip(numbers, names, strict=True)]


def true_poses(truth: dict[str, Any], names: list[str]) -> np.ndarray:
    """(N, 4, 4)."""
    frames = true_frames(truth)
    return np.array([frames[i]["transform_matrix"] for i in places(truth, names)])


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) degrees between rotations (N, 3, 3)."""
    cosine = (np.einsum("nij,nij->n", a, b) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def errors(found: np.ndarray, true: np.ndarray, world: Similarity) -> tuple[float, float]:
    """Root mean square centre error in % of the path's length, and mean rotation error in degrees."""
    moved = world.camera_to_world(found)
    length = np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1).sum()
    off = np.linalg.norm(moved[:, :3, 3] - true[:, :3, 3], axis=1)
    return 100 * float(np.sqrt((off**2).mean())) / length, float(angles(moved[:, :3, :3], true[:, :3, :3]).mean())


def compare(document: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    """Errors over all placed frames in time order."""
    frames = sorted((f for f in document["frames"] if "transform_matrix" in f), key=lambda f: f["time"])
    found = np.array([f["transform_matrix"] for f in frames])
    true = true_poses(truth, [f["file_path"] for f in frames])
    ratio = document["fl_x"] / document["w"] / (truth["fl_x"] / truth["w"])
    try:
        both = errors(found, true, align_poses(found, true))
        centres = errors(found, true, umeyama(found[:, :3, 3], true[:, :3, 3]))
    except ValueError as error:
        return ["-", "-", "-", "-", str(error), f"{ratio - 1:+.1%}"]
    steps = [(p[:-1, :3, :3].transpose(0, 2, 1) @ p[1:, :3, :3]) for p in (found, true)]
    return [*(f"{x:.2f}" for x in (*both, *centres)), f"{angles(*steps).mean():.3f}", f"{ratio - 1:+.1%}"]


def measure(source: Path, preset: str, settings: dict[str, str], until: str, keep: Path) -> list[str]:
    """One row of the table."""
    events: list[Event] = []
    run = RunDir(keep)
    run.write_config(resolve(preset, {"device": "cpu", **settings}), source, {})
    started = time.monotonic()
    failure = ""
    try:
        run_pipeline(run, Reporter(events.append), until=until)
    except CamerasFailed as error:
        failure = error.detail
    seconds = [f"{e['stage']} {e['seconds']:.0f}" for e in events if e["event"] == "done"]
    for event in events:
        if event["event"] in ("warning", "fallback"):
            sys.stderr.write(f"{source}: {event['stage']}: {event['message']}\n")
    name = f"{source.parent.name}/{source.name}"
    if failure:
        return [name, failure, *["-"] * 7, f"{time.monotonic() - started:.0f}"]
    document = read_transforms(run.capture)
    shares = []
    for split in ("train", "test"):
        named = [f for f in document["frames"] if f["file_path"] in document[f"{split}_filenames"]]
        shares.append(f"{sum('transform_matrix' in f for f in named)}")
    truth = truth_of(source)
    row = [name, *shares, *(compare(document, truth) if truth else ["-"] * 6), ", ".join(seconds)]
    if until == "depth" and truth and "depth_file_path" in truth["frames"][0]:
        names = [f["file_path"] for f in sorted(frames_of(document, "train"), key=lambda f: f["time"])]
        truth_file, index = source.parent / "transforms.json", places(truth, names)
        row += depth_errors(run.capture, truth_file, true_poses(truth, names), index)
        row += mask_overlaps(run.capture, truth_file, index)
    return row


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--until", choices=STAGES[2:4], default=STAGES[2], help="last stage to run")
    parser.add_argument("--keep", type=Path, help="folder for the runs")
    chosen = parser.parse_args()
    settings = dict(item.split("=", 1) for item in chosen.set)
    columns = (*COLUMNS, *((*DEPTH_COLUMNS, *MASK_COLUMNS) if chosen.until == "depth" else ()))
    sys.stdout.write(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    with tempfile.TemporaryDirectory() as scratch:
        for source in chosen.captures:
            folder = (chosen.keep or Path(scratch)) / f"{source.parent.name}-{source.stem}"
            row = measure(source.resolve(), chosen.preset, settings, chosen.until, folder)
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
