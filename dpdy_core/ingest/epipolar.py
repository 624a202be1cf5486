"""How far image motion is from what a moving camera and a static scene can cause.

Points are (N, 2) pixels x, y in OpenCV's convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

if TYPE_CHECKING:  # it loads torch, which the capture report must do without
    from dpdy_core.ingest.pinhole import Pinhole

Model = Literal["poses", "fundamental", "homography", "still"]

PLANAR_SHARE = 0.9  # a homography that explains this share of what F explains leaves F undetermined
STILL_PIXELS = 0.25  # a median background motion below this is noise of the flow


@dataclass(frozen=True)
class CameraMotion:
    """What the camera did between two frames, as seen in the image: a fundamental matrix or a homography."""

    model: Model
    matrix: np.ndarray  # (3, 3)

    def residual(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(N,) pixels by which the motion from `first` to `second` departs from a static scene's."""
        if self.model in ("poses", "fundamental"):
            return sampson_distance(self.matrix, first, second)
        return np.linalg.norm(transfer(self.matrix, first) - second, axis=-1)


def sampson_distance(fundamental: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) first-order distance in pixels to the epipolar constraint (Hartley & Zisserman, eq. 11.9, square root)."""
    ones = np.ones((len(first), 1))
    x, y = np.hstack([first, ones]), np.hstack([second, ones])
    line2, line1 = x @ fundamental.T, y @ fundamental
    algebraic = (y * line2).sum(-1)
    gradient = np.hypot(np.hypot(line2[:, 0], line2[:, 1]), np.hypot(line1[:, 0], line1[:, 1]))
    return np.abs(algebraic) / np.maximum(gradient, 1e-12)


def transfer(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) `points` moved by a homography."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    return moved[:, :2] / np.where(np.abs(moved[:, 2:]) < 1e-9, 1e-9, moved[:, 2:])


def fundamental_from_poses(k1: np.ndarray, w2c1: np.ndarray, k2: np.ndarray, w2c2: np.ndarray) -> np.ndarray:
    """(3, 3) F with y^T F x = 0 for x in camera 1, y in camera 2 (Hartley & Zisserman, eq. 9.2)."""
    rotation = w2c2[:, :3] @ w2c1[:, :3].T
    t = w2c2[:, 3] - rotation @ w2c1[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    matrix: np.ndarray = np.linalg.inv(k2).T @ cross @ rotation @ np.linalg.inv(k1)
    return matrix / max(np.linalg.norm(matrix), 1e-300)


def motion_from_poses(one: Pinhole, two: Pinhole, first: np.ndarray, second: np.ndarray) -> CameraMotion:
    """The motion between two known cameras; the point pairs (N, 2) say whether there is parallax at all.

    Without parallax the epipole is noise, and the rotation alone predicts where every point goes.
    """
    rotation = CameraMotion("homography", two.k @ two.w2c[:, :3] @ one.w2c[:, :3].T @ np.linalg.inv(one.k))
    if len(first) == 0 or np.median(rotation.residual(first, second)) < STILL_PIXELS:
        return rotation
    return CameraMotion("poses", fundamental_from_poses(one.k, one.w2c, two.k, two.w2c))


def fit_homography(first: np.ndarray, second: np.ndarray, tolerance: float, trials: int = 2000) -> np.ndarray | None:
    """(3, 3) homography that carries most points (N, 2) of `first` to within `tolerance` pixels; None without any."""
    cv2.setRNGSeed(0)
    try:
        return cv2.findHomography(first, second, cv2.USAC_MAGSAC, tolerance, None, trials, 0.999)[0]
    except cv2.error:  # raised for some point sets that allow no model
        return None


def fit_fundamental(first: np.ndarray, second: np.ndarray, tolerance: float, trials: int = 2000) -> np.ndarray | None:
    """(3, 3) fundamental matrix that most point pairs (N, 2) obey to within `tolerance` pixels; None without any."""
    cv2.setRNGSeed(0)
    try:
        matrix = cv2.findFundamentalMat(first, second, cv2.USAC_MAGSAC, tolerance, 0.999, trials)[0]
    except cv2.error:
        return None
    return matrix if matrix is not None and matrix.shape == (3, 3) else None


def fit_motion(
    first: np.ndarray, second: np.ndarray, tolerance: float, moves: np.ndarray | None = None
) -> CameraMotion:
    """The camera's motion that explains most of the point pairs (N, 2), `tolerance` in pixels.

    Falls from a fundamental matrix to a homography where the parallax leaves F undetermined (rotation, one plane),
    and to no motion at all where the background stands still. `moves` (N,) bool marks points not to fit.
    """
    keep = np.ones(len(first), bool) if moves is None or (~moves).sum() < 16 else ~moves
    first, second = first[keep].astype(np.float64), second[keep].astype(np.float64)
    still = CameraMotion("still", np.eye(3))
    if len(first) < 16 or np.median(np.linalg.norm(second - first, axis=-1)) < STILL_PIXELS:
        return still
    homography, fundamental = fit_homography(first, second, tolerance), fit_fundamental(first, second, tolerance)
    if homography is None:
        return still
    planar = CameraMotion("homography", homography)
    if fundamental is None:
        return planar
    general = CameraMotion("fundamental", fundamental)
    explained = (planar.residual(first, second) < tolerance).sum()
    return planar if explained >= PLANAR_SHARE * (general.residual(first, second) < tolerance).sum() else general
