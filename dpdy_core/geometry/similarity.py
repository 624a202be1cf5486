"""Similarity transforms: one scale, one rotation, one shift."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + shift, in double precision."""

    scale: float
    rotation: np.ndarray  # (3, 3)
    shift: np.ndarray  # (3,)

    def points(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) moved points."""
        moved: np.ndarray = self.scale * points @ self.rotation.T + self.shift
        return moved

    def camera_to_world(self, matrices: np.ndarray) -> np.ndarray:
        """(N, 3, 4) or (N, 4, 4) moved camera poses: turned and shifted, the rotation stays a rotation."""
        moved = matrices.astype(np.float64).copy()
        moved[:, :3, :3] = self.rotation @ matrices[:, :3, :3]
        moved[:, :3, 3] = self.points(matrices[:, :3, 3])
        return moved


def umeyama(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity that carries `source` (N, 3) onto `target` (N, 3) with least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991), eq. 40
    to 42. Raises ValueError for fewer than three points or points that all coincide.
    """
    if len(source) < 3 or source.shape != target.shape:
        raise ValueError("a similarity needs three or more pairs of points")
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    variance = (s**2).sum() / len(s)
    if variance < 1e-24:
        raise ValueError("the source points coincide")
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))  # no reflection
    rotation = u @ np.diag(sign) @ vt
    scale = float((d * sign).sum() / variance)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def align_poses(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity that carries camera poses `source` (N, 3 or 4, 4) onto `target`, by their rotations first.

    The rotation is the chordal L2 mean of R_target R_source^T (Hartley et al., "Rotation averaging", IJCV 2013, section
    5.3); scale and shift then follow from the centres by least squares. Unlike `umeyama` it is determined on a straight
    path, whose spin about itself the centres leave open. Raises ValueError for fewer than two poses or one place.
    """
    if len(source) < 2 or len(source) != len(target):
        raise ValueError("aligning poses needs two or more pairs")
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", target[:, :3, :3], source[:, :3, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)]) @ vt
    source_mean, target_mean = source[:, :3, 3].mean(0), target[:, :3, 3].mean(0)
    s, t = (source[:, :3, 3] - source_mean) @ rotation.T, target[:, :3, 3] - target_mean
    variance = (s**2).sum()
    if variance < 1e-24:
        raise ValueError("the source cameras stand in one place")
    scale = float((s * t).sum() / variance)
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def upright(camera_to_world: np.ndarray, depths: np.ndarray, target_depth: float) -> Similarity:
    """The similarity that turns the mean up of the cameras (N, 3, 4) to +z, as nerfstudio does ("up"), puts their mean
    place at the origin, and scales the median of `depths` (M,) to `target_depth`.
    """
    up = camera_to_world[:, :3, 1].mean(0)
    if np.linalg.norm(up) < 1e-6:
        up = camera_to_world[0, :3, 1]
    up = up / np.linalg.norm(up)
    rotation = _turn(up, np.array([0.0, 0.0, 1.0]))
    scale = target_depth / float(np.median(depths)) if len(depths) else 1.0
    return Similarity(scale, rotation, -scale * rotation @ camera_to_world[:, :3, 3].mean(0))


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that carries unit vector `a` to unit vector `b` (Rodrigues)."""
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-8:
        side = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        side /= np.linalg.norm(side)
        return 2 * np.outer(side, side) - np.eye(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)
