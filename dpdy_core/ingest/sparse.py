"""Sparse static points and where the training frames saw them: what depth is aligned to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpdy_core.rundir import write_atomic

POINTS_FILE = "points.npz"  # in the capture's folder

# which points a frame saw (K,), its OpenGL camera-to-world (4, 4), and fx, fy, cx, cy in pixels
Sight = tuple[np.ndarray, np.ndarray, tuple[float, float, float, float]]


@dataclass(frozen=True)
class SparsePoints:
    """P points and M observations of them. Pixels are those of the stored frames, in the convention of `Cameras`."""

    xyz: np.ndarray  # (P, 3) world
    frames: list[str]  # file_path of the frames
    frame: np.ndarray  # (M,) index into frames
    point: np.ndarray  # (M,) index into xyz
    xy: np.ndarray  # (M, 2) pixels
    depth: np.ndarray  # (M,) planar depth in the frame, camera units

    @staticmethod
    def projected(xyz: np.ndarray, seen: Mapping[str, Sight], size: tuple[int, int]) -> "SparsePoints":
        """Points (P, 3) where the frames' cameras see them, in stored images of `size` (width, height).

        What lies behind a camera or outside its image is left out.
        """
        parts = []
        for index, (points, c2w, (fx, fy, cx, cy)) in enumerate(seen.values()):
            x, y, z = ((xyz[points] - c2w[:3, 3]) @ c2w[:3, :3]).T
            depth = -z
            ahead = np.where(depth > 0, depth, np.inf)
            pixels = np.column_stack([fx * x / ahead + cx, cy - fy * y / ahead])
            inside = (depth > 0) & (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1)
            parts.append((np.full(inside.sum(), index), points[inside], pixels[inside], depth[inside]))
        frame, point, xy, depth = (np.concatenate(part) for part in zip(*parts, strict=True))
        return SparsePoints(xyz, list(seen), frame, point, xy, depth)

    def seen_by(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (K, 2) and planar depths (K,) of the points that frame `name` saw."""
        if name not in self.frames:
            return np.zeros((0, 2)), np.zeros(0)
        chosen = self.frame == self.frames.index(name)
        return self.xy[chosen], self.depth[chosen]

    def save(self, path: Path) -> None:
        """Write an npz without pickled objects, atomically."""
        write_atomic(
            path,
            lambda partial: np.savez_compressed(
                partial,
                xyz=self.xyz.astype(np.float32),
                frames=np.array(self.frames, dtype=np.str_),
                frame=self.frame.astype(np.int32),
                point=self.point.astype(np.int32),
                xy=self.xy.astype(np.float32),
                depth=self.depth.astype(np.float32),
            ),
        )

    @staticmethod
    def load(path: Path) -> "SparsePoints":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            return SparsePoints(
                data["xyz"].astype(np.float64),
                [str(name) for name in data["frames"]],
                data["frame"].astype(np.int64),
                data["point"].astype(np.int64),
                data["xy"].astype(np.float64),
                data["depth"].astype(np.float64),
            )
