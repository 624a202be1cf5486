"""Tiny captures that the ingest tests make for themselves."""

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from dpdy_core.config import IngestConfig, RunConfig
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import RunDir

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """(H, W, 3) uint8: a moving smooth texture; red falls along x, green along y, blue is 8 * index everywhere."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    wave = 25 * np.sin(2 * np.pi * (3 * x + 2 * y) + index / 2)
    red, green = 200 - 150 * x + wave, 200 - 150 * y - wave
    return np.stack([red, green, np.full_like(x, 8 * index)], axis=-1).clip(0, 255).astype(np.uint8)


def index_of(rgb: np.ndarray) -> int:
    """Which `picture` an image shows, whatever was done to it."""
    return round(float(np.median(rgb[..., 2])) / 8)


def make_video(
    path: Path,
    frames: int = 24,
    width: int = 64,
    height: int = 48,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    ticks: Sequence[int] | None = None,
    prepare: Callable[[Any], None] | None = None,
    movflags: str = "",
    keyint: int = 250,
) -> Path:
    """A video of `picture` 0, 1, ... at 24 frames a second, or at `ticks` of 1/240 s."""
    codec_options = {"crf": "4", "g": str(keyint)}
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream: Any = container.add_stream(codec, rate=24, options=codec_options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, 240)
        if prepare is not None:
            prepare(stream)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), "rgb24")
            frame.pts = ticks[index] if ticks is not None else 10 * index
            frame.time_base = Fraction(1, 240)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_images(folder: Path, frames: int = 6, width: int = 64, height: int = 48, suffix: str = ".png") -> Path:
    """A folder of `picture` 0, 1, ... as frame0, frame1, ... without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(frames):
        cv2.imwrite(str(folder / f"frame{index}{suffix}"), picture(index, width, height)[:, :, ::-1])
    return folder


def make_posed(folder: Path, frames: int = 6, width: int = 64, height: int = 48, **top: Any) -> Path:
    """A nerfstudio capture with poses on a line and times; `top` are keys of the document."""
    make_images(folder / "images", frames, width, height)
    entries = []
    for index in range(frames):
        pose = np.eye(4)
        angle = 0.1 * index
        pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        pose[0, 3] = 0.1 * index
        entry = {"file_path": f"images/frame{index}.png", "time": index / (frames - 1)}
        entries.append({**entry, "transform_matrix": pose.tolist()})
    document = {"w": width, "h": height, "fl_x": 50.0, "fl_y": 52.0, "cx": 31.0, "cy": 25.0, "frames": entries}
    (folder / "transforms.json").write_text(json.dumps({**document, **top}))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the capture's document in place."""
    path = folder / "transforms.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return folder


def make_run(folder: Path, source: Path, **ingest: Any) -> tuple[RunDir, RunConfig]:
    """A run folder made for `source`."""
    run, config = RunDir(folder), RunConfig(ingest=IngestConfig(**ingest))
    run.write_config(config, source, {})
    return run, config


def recording() -> tuple[Reporter, list[Event]]:
    """A reporter and the list of its events."""
    events: list[Event] = []
    return Reporter(events.append), events
