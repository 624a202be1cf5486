"""Stands in for `python -m dpdy_core`: the same commands, events and files, in seconds and without torch.

`stand_in_engine.py PACE run FOLDER ...` takes PACE seconds a step. A capture that
holds the word `fail` fails in `cameras`; one that holds `reject` is rejected by `inspect`, one that holds `risky` or
`hopeless` is judged so.
"""

import io
import json
import sys
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from dpdy_core.config import STAGES
from dpdy_core.errors import BadInput, CamerasFailed, DpdyError
from dpdy_core.ingest.forecast import forecast
from dpdy_core.progress import Reporter, json_lines
from dpdy_core.rundir import RunDir, write_atomic, write_json

STEPS = 8
SIZE = (160, 120)
PATHS = ("input", "bullet-time")
REPORT = {
    **{"kind": "video", "frames": 122, "fps": 29.97, "duration": 4.04, "width": 1280, "height": 720},
    **{"has_splits": False, "has_poses": False, "has_depth": False, "has_motion_masks": False},
    "splits": {"train": 122, "val": 0, "test": 0},
    "sharpness": {"median": 500.0, "lowest": 400.0, "blurred_share": 0.05},
    "brightness": {"median": 0.5, "largest_jump": 0.04},
    "motion": {"parallax": 0.15, "moving_share": 0.1, "linked_share": 1.0},
    **{"cameras": None, "notes": [], "warnings": [], "reasons": [], "verdict": "good"},
}
MEAN = {"psnr": 21.37, "ssim": 0.712, "ms_ssim": 0.833, "lpips": None, "moving": {"psnr": 17.2, "ssim": 0.6}}


def picture(phase: float, kind: str) -> np.ndarray:
    """A disc that moves over a gradient (h, w, 3), uint8."""
    width, height = SIZE
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    disc = ((x - 0.2 - 0.6 * phase) ** 2 + (y - 0.5) ** 2 < 0.03)[..., None]
    image = np.stack([0.3 + 0.5 * x, 0.35 + 0.4 * y, 0.7 - 0.3 * x], -1)
    image = np.where(disc, [0.95, 0.6, 0.25], image)
    if kind == "_depth":
        image = np.repeat(np.where(disc, 0.9, 0.2 + 0.3 * y[..., None]), 3, -1)
    if kind == "_invented":
        image = np.repeat((x > 0.85)[..., None].astype(float), 3, -1)
    return (image * 255).astype(np.uint8)


def write_video(path: Path, kind: str) -> None:
    container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
    stream = container.add_stream("libx264", rate=12)
    stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
    for number in range(24):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number / 24, kind))))
    container.mux(stream.encode())
    container.close()


def write_picture(path: Path, phase: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(phase, "")).save(buffer, "JPEG")
    write_atomic(path, lambda partial: partial.write_bytes(buffer.getvalue()))


def run(folder: RunDir, reporter: Reporter, pace: float) -> None:
    source = folder.read_config()[1]
    for stage in STAGES:
        reporter.start(stage)
        sys.stderr.write(f"{stage}: <b>begins</b>\n")
        for step in range(1, STEPS + 1):
            time.sleep(3 * pace if stage == "render" else pace)
            reporter.step(step, STEPS, loss=1 / step)
            if stage == "scene" and step % 4 == 0:
                name = f"renders/previews/{step:06d}.jpg"
                write_picture(folder.root / name, step / STEPS)
                reporter.preview(name)
        if stage == "depth":
            reporter.fall_back("no depth model is set: <script>alert(1)</script> a plane sweep is used")
        if stage == "cameras" and "fail" in source.read_text(errors="replace"):
            raise CamerasFailed("2 of 24 frames found their camera", "film with more texture and sideways motion")
        reporter.done()
    for path in PATHS:
        for kind in ("", "_depth", "_invented"):
            write_video(folder.renders / f"{path}{kind}.mp4", kind)
    write_json(folder.metrics_file, {"mean": MEAN, "views": [], "notes": ["lpips: its weights are not here"]})
    folder.report_file.write_text(
        "<!doctype html><title>Report</title><h1>Report</h1><video muted autoplay src='renders/input.mp4'>"
    )
    folder.write_manifest(1)
    reporter.emit("finished")


def inspect(file: Path) -> int:
    text = file.read_text(errors="replace")
    broken = "reject" in text
    error = BadInput("the file holds no video frames", "copy it from the camera again")
    document = error.problem() if broken else {**REPORT, "forecast": forecast(REPORT)}
    for word, verdict in (("risky", "risky"), ("hopeless", "will fail")):
        if word in text:
            reasons = [{"verdict": verdict, "what": "the <b>camera</b> stands still", "remedy": "walk sideways"}]
            document |= {"verdict": verdict, "reasons": reasons}
    sys.stdout.write(json.dumps(document) + "\n")
    return error.exit_code if broken else 0


def main() -> int:
    pace, command, target = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    if command == "inspect":
        return inspect(target)
    reporter = Reporter(json_lines(sys.stdout), interval=0.0)
    try:
        run(RunDir(target), reporter, pace)
    except DpdyError as error:
        reporter.emit("problem", **error.problem())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
