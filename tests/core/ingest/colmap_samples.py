"""Tiny COLMAP models and LLFF captures that the ingest tests write for themselves, from the formats' descriptions."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from ingest_samples import picture

MODELS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "FOV": 7}


def quaternion(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    """w x y z."""
    unit = np.array(axis) / np.linalg.norm(axis)
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * unit)])


@dataclass
class Sample:
    """A model of N images of P points; every image sees all points."""

    names: list[str]
    size: tuple[int, int] = (64, 48)
    model: str = "PINHOLE"
    parameters: tuple[float, ...] = (50.0, 52.0, 31.0, 25.0)
    cameras: list[int] = field(default_factory=list)  # of each image; empty: one for all
    rotations: np.ndarray = field(init=False)  # (N, 4) world to camera
    translations: np.ndarray = field(init=False)  # (N, 3)
    xyz: np.ndarray = field(init=False)  # (P, 3)

    def __post_init__(self) -> None:
        count = len(self.names)
        self.cameras = self.cameras or [1] * count
        self.rotations = np.array([quaternion((0.3, 1, 0.2), 0.02 * i) for i in range(count)])
        self.translations = np.array([[0.1 * i, 0.02 * i, 0.01 * i] for i in range(count)])
        grid = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 6), np.linspace(-0.6, 0.6, 5)), -1).reshape(-1, 2)
        self.xyz = np.column_stack([grid, 4 + 0.1 * np.arange(len(grid))])

    def observed(self) -> list[tuple[float, float, int]]:
        """x, y, point; the first is of no point, as most features are."""
        return [(1.5, 2.5, -1), *((10.0, 20.0, 7 + i) for i in range(len(self.xyz)))]

    def write_text(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = " ".join(map(repr, self.parameters))
        cameras = [f"{key} {self.model} {self.size[0]} {self.size[1]} {numbers}" for key in sorted(set(self.cameras))]
        (folder / "cameras.txt").write_text("# Camera list\n" + "\n".join(cameras) + "\n")
        lines = ["# Image list with two lines of data per image:"]
        for index, name in enumerate(self.names):
            pose = " ".join(repr(float(x)) for x in (*self.rotations[index], *self.translations[index]))
            lines.append(f"{index + 1} {pose} {self.cameras[index]} {name}")
            lines.append(" ".join(f"{x} {y} {point}" for x, y, point in self.observed()))
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
        points = [f"{7 + i} {x!r} {y!r} {z!r} 9 9 9 0.5 1 {i + 1}" for i, (x, y, z) in enumerate(self.xyz.tolist())]
        (folder / "points3D.txt").write_text("# 3D point list\n" + "\n".join(points) + "\n")
        return folder

    def write_binary(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        keys = sorted(set(self.cameras))
        cameras = struct.pack("<Q", len(keys))
        for key in keys:
            cameras += struct.pack("<IiQQ", key, MODELS[self.model], *self.size)
            cameras += struct.pack(f"<{len(self.parameters)}d", *self.parameters)
        (folder / "cameras.bin").write_bytes(cameras)
        images = struct.pack("<Q", len(self.names))
        for index, name in enumerate(self.names):
            images += struct.pack("<I7d", index + 1, *self.rotations[index], *self.translations[index])
            images += struct.pack("<I", self.cameras[index]) + name.encode() + b"\0"
            images += struct.pack("<Q", len(self.observed()))
            images += b"".join(struct.pack("<ddq", *row) for row in self.observed())
        (folder / "images.bin").write_bytes(images)
        points = struct.pack("<Q", len(self.xyz))
        for index, place in enumerate(self.xyz):
            points += struct.pack("<Q3d3Bd", 7 + index, *place, 9, 9, 9, 0.5)
            points += struct.pack("<QII", 1, 1, index + 1)
        (folder / "points3D.bin").write_bytes(points)
        return folder


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (64, 48)) -> None:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture(index, *size)[:, :, ::-1])


def make_colmap(folder: Path, frames: int = 6, binary: bool = True, place: str = "sparse/0") -> Path:
    """A capture of `frames` images `frame0.png` ... and their model."""
    sample = Sample([f"frame{index}.png" for index in range(frames)])
    write_pictures(folder / "images", sample.names)
    (sample.write_binary if binary else sample.write_text)(folder / place)
    return folder


def llff_rows(count: int, size: tuple[int, int] = (64, 48), focal: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 17) as `poses_bounds.npy` has them, and the (N, 4, 4) OpenGL camera-to-world matrices they mean."""
    rows, poses = np.zeros((count, 17)), np.tile(np.eye(4), (count, 1, 1))
    for index in range(count):
        turn = 0.05 * index
        poses[index, :3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        poses[index, :3, 3] = [0.1 * index, 0.02 * index, 0.3]
        right, up, back, place = poses[index, :3].T
        matrix = np.column_stack([-up, right, back, place, [size[1], size[0], focal]])
        rows[index] = [*matrix.reshape(-1), 2.0 + 0.01 * index, 9.0]
    return rows, poses


def make_llff(folder: Path, frames: int = 6, images: str = "images", scale: int = 1) -> Path:
    """An LLFF capture whose images are `scale` times smaller than its poses say."""
    rows, _ = llff_rows(frames)
    write_pictures(folder / images, [f"{index:05d}.png" for index in range(frames)], (64 // scale, 48 // scale))
    np.save(folder / "poses_bounds.npy", rows)
    return folder


def make_nvidia(folder: Path, frames: int = 14) -> Path:
    """A dynamic scene as NSFF ships it; the picture of camera c at time t is `picture((5 * c + t) % 32)`."""
    folder.mkdir(parents=True)
    np.save(folder / "poses_bounds.npy", llff_rows(12)[0][np.arange(frames) % 12])
    for time in range(frames):
        moving = picture((5 * (time % 12) + time) % 32)
        for place, image in (
            (f"images/{time:05d}.png", moving),
            (f"mv_images/{time:05d}/cam01.jpg", picture(time % 32)),
            (f"mv_images/{time:05d}/cam02.jpg", picture((5 + time) % 32)),
            (f"motion_masks/{time:05d}.png", np.full((48, 64), 255 * (time % 2), np.uint8)),
            (f"mv_masks/{time:05d}/cam01.png", np.full((48, 64), 255, np.uint8)),
        ):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / place), image[:, :, ::-1] if image.ndim == 3 else image)
        (folder / "disp").mkdir(exist_ok=True)
        np.save(folder / "disp" / f"{time:05d}.npy", np.full((24, 32), 1.0 + time, np.float32))
    return folder
