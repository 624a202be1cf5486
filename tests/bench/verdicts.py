"""Whether the capture report's verdict comes true, on captures made well and badly on purpose.

`python -m tests.bench.verdicts OUT [NAME]...` makes the captures of `flawed.py` as videos in OUT, judges each by a
first look, then solves its cameras as `dpdy inspect --cameras` does, and prints both beside each other. What is in OUT
already is not made again. Nothing here passes or fails.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.geometry.similarity import umeyama
from dpdy_core.ingest.clip import read_transforms
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.rehearsal import rehearse
from dpdy_core.progress import Reporter
from tests.bench.flawed import FLAWED, write_video

POOR = 2.0  # percent of the path: the project's aim for camera centres
LOST = 10.0


def solve(video: Path, poses: np.ndarray | None) -> dict[str, Any]:
    """What became of the cameras: `registered`, `centre` (root mean square error, % of the path), `problem`."""
    with tempfile.TemporaryDirectory() as scratch:
        cameras = rehearse(video, Path(scratch), False, Reporter())["cameras"]
        found = {"registered": cameras["registered_share"], "problem": cameras.get("problem"), "centre": None}
        if "problem" in cameras or poses is None:
            return found
        frames = [f for f in read_transforms(Path(scratch) / "capture")["frames"] if "transform_matrix" in f]
    index = [int(Path(f["file_path"]).stem.removeprefix("frame_")) for f in frames]
    ours = np.array([f["transform_matrix"] for f in frames])[:, :3, 3]
    true = poses[index][:, :3, 3]
    length = np.linalg.norm(np.diff(poses[np.argsort(poses[:, 0, 3])][:, :3, 3], axis=0), axis=1).sum()
    if length > 1e-6 and len(ours) > 2:
        off = np.linalg.norm(umeyama(ours, true).points(ours) - true, axis=1)
        found["centre"] = 100 * float(np.sqrt((off**2).mean())) / float(length)
    return found


def outcome(found: dict[str, Any], moves: bool) -> str:
    """`good`, `poor`, `fails`, or `no parallax` for a camera that kept its place; from the cameras alone."""
    if found["problem"] or found["registered"] < 0.5 or (found["centre"] or 0) > LOST:
        return "fails"
    if not moves:
        return "no parallax"
    return "poor" if found["registered"] < 0.95 or (found["centre"] or 0) > POOR else "good"


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One row: the verdict of a first look, now, and what became of the cameras, perhaps earlier."""
    video = folder / f"{name.replace(' ', '_').replace(',', '')}.mp4"
    truth, kept = video.with_suffix(".npy"), video.with_suffix(".json")
    if not video.exists():
        clip = FLAWED[name]()
        if clip.cameras is not None:
            np.save(truth, clip.cameras)
        write_video(video, clip)
    poses = np.load(truth, allow_pickle=False) if truth.exists() else None
    if not kept.exists():
        kept.write_text(json.dumps(solve(video, poses)))
    found = json.loads(kept.read_text())
    started = time.perf_counter()
    report = inspect_input(video)
    seconds = time.perf_counter() - started
    moves = poses is None or float(np.ptp(poses[:, :3, 3], axis=0).max()) > 1e-6
    return {"report": report, "seconds": seconds, "found": found, "outcome": outcome(found, moves)}


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(
        "| capture | verdict | first reason | registered | centre, % | cameras | seconds |\n"
        "|---|---|---|--:|--:|---|--:|\n"
    )
    for name in sys.argv[2:] or FLAWED:
        row = measure(name, folder)
        report, found = row["report"], row["found"]
        why = max(report["reasons"], key=lambda r: r["verdict"] == "will fail", default={"what": ""})["what"]
        centre = "-" if found["centre"] is None else f"{found['centre']:.2f}"
        cells = [
            name,
            report["verdict"],
            why,
            f"{found['registered']:.0%}",
            centre,
            row["outcome"],
            f"{row['seconds']:.0f}",
        ]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
