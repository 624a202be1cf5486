"""`python -m tests.bench.long_video`: a 4K, 60 fps, 2-minute video through inspect and ingest: time, memory, disk.

`--seconds 10` for a shorter one, `--keep FILE` to reuse the video. Nothing here passes or fails.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.sandbox import confined
from dpdy_core.presets import resolve
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir

WIDTH, HEIGHT, RATE, LOOP = 3840, 2160, 60, 120  # LOOP: frames that are encoded; the rest repeats their packets


def make_long_video(path: Path, seconds: int) -> None:
    """A camera that pans over a texture with detail at all scales, in H.264 as phones write it (one IDR in 2 s)."""
    generator = np.random.default_rng(0)
    texture = np.zeros((HEIGHT + 2 * LOOP, WIDTH + 4 * LOOP, 3), np.float32)
    for cell in (2, 8, 32, 128):
        coarse = generator.standard_normal((texture.shape[0] // cell + 2, texture.shape[1] // cell + 2, 3))
        texture += cell**0.4 * cv2.resize(coarse.astype(np.float32), texture.shape[1::-1])
    picture = (128 + 45 * texture / texture.std()).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "superfast", "crf": "26", "g": str(LOOP), "sc_threshold": "0"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        encoded: list[tuple[bytes, int, int, bool]] = []

        def take(packets: list[av.Packet]) -> None:
            encoded.extend((bytes(p), p.pts or 0, p.dts or 0, p.is_keyframe) for p in packets)

        for index in range(LOOP):
            view = picture[index : index + HEIGHT, 3 * index : 3 * index + WIDTH]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            take(stream.encode(frame))
        take(stream.encode())
        for round_ in range(seconds * RATE // LOOP):
            for data, pts, dts, key in encoded:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, RATE), key
                packet.pts, packet.dts, packet.duration = pts + LOOP * round_, dts + LOOP * round_, 1
                container.mux(packet)


def measured(name: str, folder: Path, action: Callable[[], object]) -> None:
    """Print time, the largest resident set of the reading child, and the most that lay in `folder` meanwhile."""
    largest, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal largest
        while not ended.wait(0.2):
            largest = max(largest, _size(folder))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        action()
    finally:
        ended.set()
        watcher.join()
    seconds = time.monotonic() - started
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    disk = max(largest, _size(folder)) / 2**20
    sys.stdout.write(f"  {name:<16}{seconds:>8.1f} s{child:>10.0f} MiB{own:>10.0f} MiB{disk:>10.1f} MiB\n")
    sys.stdout.flush()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # renamed or removed since
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.long_video")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        video = arguments.keep or folder / "long.mp4"
        if not video.exists():  # in a process of its own: the encoder's memory is not ours
            script = f"from tests.bench.long_video import *; make_long_video(Path({str(video)!r}), {arguments.seconds})"
            subprocess.run([sys.executable, "-c", script], check=True)
        sys.stdout.write(f"{WIDTH}x{HEIGHT}, {RATE} fps: {video.stat().st_size / 2**20:.0f} MiB\n")
        sys.stdout.write(f"  {'':<16}{'time':>10}{'child RSS':>14}{'own RSS':>14}{'disk':>14}\n")
        (folder / "inspect").mkdir()
        measured("inspect", folder / "inspect", lambda: confined(inspect_input, video, scratch=folder / "inspect"))
        for preset in ("smoke", "fast"):
            config: RunConfig = resolve(preset, {})
            run = RunDir(folder / preset)
            run.write_config(config, video, {})
            measured(
                f"ingest, {preset}", run.root, lambda run=run, config=config: ingest_capture(run, config, Reporter())
            )


if __name__ == "__main__":
    main()
