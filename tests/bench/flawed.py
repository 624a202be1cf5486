"""Captures made well and badly on purpose, with their true cameras: what the capture report's verdict is checked on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth.capture import TARGET, cameras_around, rgb_bytes
from dpdy_core.synth.scenes import build_scene
from dpdy_core.synth.shading import draw
from dpdy_core.synth.textures import TEXTURE_NAMES

FPS, FRAMES, SIZE = 12, 32, (400, 300)
Frames = list[np.ndarray]  # of (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Clip:
    """Frames and, where all of them show one still world, their true camera-to-world (T, 3, 4)."""

    frames: Frames
    cameras: np.ndarray | None
    rate: float = FPS
    crf: int = 18


def _cameras(kind: str, times: Tensor) -> Cameras:
    """The cameras of a path at `times` (T,) in [0, 1]."""
    sweep = {"arc": 30.0, "short arc": 4.0, "orbit": 75.0}.get(kind, 0.0)
    rise = 18 + (1.2 if sweep else 0.0) * torch.sin(9.4 * times)
    aim = torch.tensor(TARGET).expand(len(times), 3)
    if kind == "turn":
        aim = aim + torch.stack([1.2 * (2 * times - 1), 0 * times, 0.15 * torch.sin(6 * times)], -1)
    return cameras_around(-90 + sweep * (times - 0.5), rise, *SIZE, aim)


def filmed(scene: str = "rigid", path: str = "arc", frames: int = FRAMES, plain: bool = False) -> Clip:
    """A rendered clip of a synthetic scene; `plain` paints everything in single colours."""
    times = torch.linspace(0, 1, frames)
    made = build_scene(scene, 3)
    if plain:
        made.materials.texture[:] = TEXTURE_NAMES.index("plain")
        made.materials.grain[:] = 0
    world, cameras = made.at(times), _cameras(path, times)
    pictures = []
    for i in range(frames):
        pictures.append(rgb_bytes(draw(world[i : i + 1], cameras[slice(i, i + 1)]).rgb)[0])
    return Clip(pictures, cameras.camera_to_world.numpy())


def motion_blurred(frames: Frames, length: int) -> Frames:
    """Smeared along a line of `length` pixels, in a direction of each frame's own."""
    dice, smeared = np.random.default_rng(1), []
    for frame in frames:
        kernel, angle = np.zeros((length, length), np.float32), dice.uniform(0, np.pi)
        reach = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(np.rint(length / 2 + s * reach).astype(int).tolist()) for s in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        smeared.append(cv2.filter2D(frame, -1, kernel / kernel.sum()))
    return smeared


def dark(frames: Frames, gain: float) -> Frames:
    """Under-exposed by `gain`, with the read noise of a small sensor."""
    dice = np.random.default_rng(2)
    return [np.clip(f * gain + dice.normal(0, 3, f.shape), 0, 255).astype(np.uint8) for f in frames]


def flickering(frames: Frames, depth: float) -> Frames:
    """Every frame brighter or darker by up to `depth`."""
    gains = 1 + depth * np.random.default_rng(3).uniform(-1, 1, len(frames))
    return [np.clip(f * g, 0, 255).astype(np.uint8) for f, g in zip(frames, gains, strict=True)]


def behind_a_mover(frames: Frames, share: float) -> Frames:
    """Something textured that bends and wanders covers `share` of each frame."""
    height, width = frames[0].shape[:2]
    dice = np.random.default_rng(4)
    noise = cv2.resize(dice.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8), (2 * width, 2 * height))
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    covered = []
    for t, frame in enumerate(frames):
        wave = 14 * np.sin(x / 60 + 0.5 * t) * np.cos(y / 50 - 0.4 * t)
        skin = cv2.remap(noise, x + 7 * t + wave, y + 30 * np.sin(0.6 * t) + 80 + wave, cv2.INTER_LINEAR)
        side = np.sqrt(share)
        inside = (np.abs(x / width - 0.5) < side / 2) & (np.abs(y / height - 0.5) < side / 2)
        covered.append(np.where(inside[..., None], skin, frame))
    return covered


def at_height(frames: Frames, height: int) -> Frames:
    """Scaled down to `height` lines."""
    width = round(frames[0].shape[1] * height / frames[0].shape[0] / 2) * 2
    return [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]


def _cut() -> Clip:
    one, two = filmed(frames=FRAMES // 2), filmed("occlusion", "arc", FRAMES // 2)
    return Clip(one.frames + two.frames, None)


def _reordered(clip: Clip) -> Clip:
    order = np.random.default_rng(5).permutation(len(clip.frames))
    return Clip([clip.frames[i] for i in order], clip.cameras[order])  # type: ignore[index]


def _changed(make: Callable[[Frames], Frames], **other: Any) -> Callable[[], Clip]:
    def clip() -> Clip:
        good = filmed()
        return Clip(make(good.frames), good.cameras, **other)

    return clip


FLAWED: dict[str, Callable[[], Clip]] = {
    "good": filmed,
    "good, bending things": lambda: filmed("bending"),
    "good, occlusions": lambda: filmed("occlusion"),
    "good, wide arc": lambda: filmed(path="orbit"),
    "light motion blur": _changed(lambda f: motion_blurred(f, 5)),
    "strong motion blur": _changed(lambda f: motion_blurred(f, 25)),
    "every third frame blurred": _changed(
        lambda f: [b if i % 3 == 1 else a for i, (a, b) in enumerate(zip(f, motion_blurred(f, 21), strict=True))]
    ),
    "camera stands still": lambda: filmed(path="still"),
    "camera only turns": lambda: filmed(path="turn"),
    "camera hardly moves": lambda: filmed(path="short arc"),
    "dark": _changed(lambda f: dark(f, 0.15)),
    "much too dark": _changed(lambda f: dark(f, 0.03)),
    "exposure flickers": _changed(lambda f: flickering(f, 0.4)),
    "every frame four times": _changed(lambda f: [f[i // 4 * 4] for i in range(len(f))]),
    "two frames": lambda: Clip(*(part[::31] for part in (filmed().frames, filmed().cameras))),  # type: ignore[index, arg-type]
    "mover on half the frame": _changed(lambda f: behind_a_mover(f, 0.5)),
    "mover fills the frame": _changed(lambda f: behind_a_mover(f, 0.92)),
    "no texture": lambda: filmed(plain=True),
    "cut between two scenes": _cut,
    "heavy compression": _changed(lambda f: f, crf=44),
    "extreme compression": _changed(lambda f: f, crf=51),
    "far too small": _changed(lambda f: at_height(f, 48)),
    "frames in no order": lambda: _reordered(filmed()),
}


def write_video(path: Path, clip: Clip) -> Path:
    """`clip` as an mp4 (H.264), cut to even sides."""
    height, width = (side // 2 * 2 for side in clip.frames[0].shape[:2])
    options = {"crf": str(clip.crf), "threads": "1"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=round(clip.rate), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in clip.frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path
