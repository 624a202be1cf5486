"""A small room of textured planes with exact cameras, depth and motion, written as a canonical capture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.ingest.clip import write_transforms
from dpdy_core.presets import resolve
from dpdy_core.progress import Event, Reporter
from dpdy_core.rundir import RunDir

SIZE = (160, 120)
FOCAL = 150.0


@dataclass(frozen=True)
class Plane:
    """A rectangle: `origin` plus s, t times the axes, with s and t in [-extent, extent]."""

    origin: np.ndarray
    s: np.ndarray
    t: np.ndarray
    extent: float
    texture: int
    moves: bool = False


def _planes(time: float, mover: bool) -> list[Plane]:
    x, y, z = np.eye(3)
    planes = [
        Plane(np.array([0, 0, -4.0]), x, y, 9.0, 0),  # wall
        Plane(np.array([0, -1.0, -2.0]), x, z, 9.0, 1),  # floor
        Plane(np.array([-0.8, -0.4, -2.8]), (x + 0.4 * z) / np.hypot(1, 0.4), y, 0.55, 2),  # leaning board
    ]
    if mover:
        planes.append(Plane(np.array([0.9 - 0.9 * time, -0.5 + 0.7 * time, -2.2]), x, y, 0.3, 3, moves=True))
    return planes


def _texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((256, 256, 3)).astype(np.float32)
    coarse = cv2.GaussianBlur(noise, (0, 0), 6, borderType=cv2.BORDER_REFLECT)
    fine = cv2.GaussianBlur(noise, (0, 0), 2, borderType=cv2.BORDER_REFLECT)
    mixed = (coarse - coarse.mean()) * 6 + (fine - fine.mean()) * 3
    return np.clip(0.5 + mixed + 0.2 * np.random.default_rng(seed + 50).standard_normal(3), 0, 1).astype(np.float32)


TEXTURES = [_texture(seed) for seed in range(4)]


def render(c2w: np.ndarray, time: float, mover: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8, planar depth (H, W) and motion (H, W) bool, seen from OpenGL `c2w` (4, 4)."""
    width, height = SIZE
    samples = 3  # a side, averaged to a pixel
    x, y = np.meshgrid((np.arange(width * samples) + 0.5) / samples, (np.arange(height * samples) + 0.5) / samples)
    local = np.stack([(x - width / 2) / FOCAL, -(y - height / 2) / FOCAL, -np.ones_like(x)], axis=-1)
    rays = local @ c2w[:3, :3].T
    colour, depth = np.zeros((*x.shape, 3), np.float32), np.full(x.shape, np.inf)
    moving = np.zeros(x.shape, bool)
    for plane in _planes(time, mover):
        normal = np.cross(plane.s, plane.t)
        along = rays @ normal
        z = ((plane.origin - c2w[:3, 3]) @ normal) / np.where(np.abs(along) < 1e-9, 1e-9, along)
        hit = c2w[:3, 3] + z[..., None] * rays - plane.origin
        s, t = hit @ plane.s, hit @ plane.t
        front = (z > 0.05) & (z < depth) & (np.abs(s) < plane.extent) & (np.abs(t) < plane.extent)
        uv = np.stack([(s * 60) % 255, (t * 60) % 255], axis=-1).astype(np.float32)
        colour[front] = cv2.remap(TEXTURES[plane.texture], uv, None, cv2.INTER_LINEAR)[front]
        depth[front], moving[front] = z[front], plane.moves
    rgb = cv2.resize(colour, SIZE, interpolation=cv2.INTER_AREA)
    middle = slice(samples // 2, None, samples)
    return np.rint(rgb * 255).astype(np.uint8), depth[middle, middle].astype(np.float32), moving[middle, middle]


def camera(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world at `position` looking at `target`, y up."""
    backward = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 1.0, 0.0], backward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([right, np.cross(backward, right), backward, position])
    return matrix


def sideways(count: int, length: float) -> list[np.ndarray]:
    """Cameras along a gently curved path of about `length` that look at the room."""
    steps = np.linspace(-0.5, 0.5, count)
    return [
        camera(
            np.array([length * s, 0.15 * length * np.cos(3 * s), 0.2 * length * s * s]), np.array([0.2 * s, -0.3, -3.0])
        )
        for s in steps
    ]


@dataclass(frozen=True)
class Room:
    """What was written, and the truth."""

    run: RunDir
    config: RunConfig
    reporter: Reporter
    events: list[Event]
    document: dict[str, Any]
    poses: dict[str, np.ndarray]
    depth: dict[str, np.ndarray]
    moving: dict[str, np.ndarray]

    def said(self, event: str) -> list[str]:
        return [e["message"] for e in self.events if e["event"] == event]


def write_room(
    folder: Path,
    poses: list[np.ndarray],
    *,
    mover: bool = False,
    tests: tuple[int, ...] = (),
    given: bool = True,
    settings: dict[str, Any] | None = None,
) -> Room:
    """A run folder with a canonical capture; `given`: with poses and intrinsics. Frames `tests` are held out."""
    run = RunDir(folder)
    (run.capture / "images").mkdir(parents=True)
    frames, true_poses, depths, movings = [], {}, {}, {}
    for i, pose in enumerate(poses):
        name = f"images/{i:03d}.png"
        rgb, depths[name], movings[name] = render(pose, i / (len(poses) - 1), mover)
        cv2.imwrite(str(run.capture / name), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        true_poses[name] = pose
        frame: dict[str, Any] = {"file_path": name, "time": i / (len(poses) - 1)}
        if given:
            frame["transform_matrix"] = pose.tolist()
        frames.append(frame)
    document: dict[str, Any] = {
        "camera_model": "OPENCV", "w": SIZE[0], "h": SIZE[1], "k1": 0, "k2": 0, "p1": 0, "p2": 0,
        "train_filenames": [f["file_path"] for i, f in enumerate(frames) if i not in tests],
        "val_filenames": [],
        "test_filenames": [frames[i]["file_path"] for i in tests],
        "frames": frames,
    }  # fmt: skip
    if given:
        document |= {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2}
    write_transforms(run.capture, document)
    events: list[Event] = []
    config = resolve("smoke", {"device": "cpu", **(settings or {})})
    return Room(run, config, Reporter(events.append, interval=0), events, document, true_poses, depths, movings)
