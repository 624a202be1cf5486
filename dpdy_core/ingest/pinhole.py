"""Cameras in OpenCV's convention, for OpenCV and COLMAP: x right, y down, looking along +z, world to camera."""

from dataclasses import dataclass

import numpy as np

from dpdy_core.geometry.cameras import Cameras

_FLIP = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Pinhole:
    """One camera. Pixels are OpenCV's: the centre of the first is (0, 0), half a pixel off `Cameras`' convention."""

    k: np.ndarray  # (3, 3)
    w2c: np.ndarray  # (3, 4)

    @property
    def centre(self) -> np.ndarray:
        """(3,) the camera's place in the world."""
        place: np.ndarray = -self.w2c[:, :3].T @ self.w2c[:, 3]
        return place

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) and planar depth (N,) of world `points` (N, 3)."""
        local = points @ self.w2c[:, :3].T + self.w2c[:, 3]
        depth = local[:, 2]
        pixels = local @ self.k.T
        return pixels[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[:, None], depth

    def lift(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 3) world points at planar `depth` (N,) behind `pixels` (N, 2)."""
        local = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(self.k).T * depth[:, None]
        return (local - self.w2c[:, 3]) @ self.w2c[:, :3]


def pinholes(cameras: Cameras) -> list[Pinhole]:
    """`cameras` one by one, in double precision."""
    result = []
    for c2w, focal, principal in zip(
        cameras.camera_to_world.double().numpy(),
        cameras.focal.double().numpy(),
        cameras.principal.double().numpy() - 0.5,
        strict=True,
    ):
        k = np.array([[focal[0], 0, principal[0]], [0, focal[1], principal[1]], [0, 0, 1]])
        rotation = _FLIP @ c2w[:, :3].T
        result.append(Pinhole(k, np.column_stack([rotation, -rotation @ c2w[:, 3]])))
    return result


def camera_to_world(w2c: np.ndarray) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world of an OpenCV world-to-camera (3, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = w2c[:, :3].T @ _FLIP
    matrix[:3, 3] = -w2c[:, :3].T @ w2c[:, 3]
    return matrix


def world_to_camera(c2w: np.ndarray) -> np.ndarray:
    """(3, 4) OpenCV world-to-camera of an OpenGL camera-to-world (3 or 4, 4): the inverse of `camera_to_world`."""
    rotation = _FLIP @ c2w[:3, :3].T
    return np.column_stack([rotation, -rotation @ c2w[:3, 3]])
