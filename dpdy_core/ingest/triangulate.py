"""Depth of static points between frames whose cameras are known, from optical flow."""

from collections.abc import Callable

import cv2
import numpy as np

from dpdy_core.ingest.epipolar import fundamental_from_poses, sampson_distance
from dpdy_core.ingest.flow import consistent, flow_pair
from dpdy_core.ingest.pinhole import Pinhole
from dpdy_core.ingest.sparse import SparsePoints

GAPS = (1, 2, 4, 8, 16, 32)  # frames, to both sides, that each frame is matched over
NEAR = (
    8  # longer gaps only where they are at most LONGEST of the clip: the more frames, the less the camera moves in one
)
LONGEST = 1 / 6
SPACING = 5  # pixels between candidate points
MIN_TEXTURE = 2e-4  # smaller eigenvalue of the structure tensor; weaker corners slide
MAX_EPIPOLAR = 1.0  # pixels
MIN_ANGLE = 0.6  # degrees between the two rays
AGREEMENT = 0.05  # relative depth difference between two neighbours that confirm each other


def triangulate(
    frames: list[np.ndarray],
    static: list[np.ndarray],
    cameras: list[Pinhole],
    names: list[str],
    scale: tuple[float, float],
    check: Callable[[int, int], None],
) -> SparsePoints:
    """Points on the `static` (H, W) bool pixels of the `frames`, T (H, W) uint8, that two or more neighbours confirm.

    `cameras` are those of the frames at this size; `scale` takes their pixels to those of the stored frames. Empty
    where the camera does not move. `check(done, total)` is called after each frame and may raise.
    """
    xyz, frame, xy, depths = [], [], [], []
    for i, camera in enumerate(cameras):
        pixels = _corners(frames[i], static[i])
        neighbours = [i + offset for offset in offsets(len(frames)) if 0 <= i + offset < len(frames)]
        found = [_depths(frames, static, cameras, i, j, pixels) for j in neighbours]
        depth = agreed(*map(np.stack, zip(*found, strict=True))) if found else np.full(len(pixels), np.nan)
        good = np.isfinite(depth)
        xyz.append(camera.lift(pixels[good], depth[good]))
        frame.append(np.full(good.sum(), i))
        xy.append((pixels[good] + 0.5) * scale)
        depths.append(depth[good])
        check(i + 1, len(cameras))
    count = sum(map(len, depths))
    return SparsePoints(
        np.concatenate(xyz), names, np.concatenate(frame), np.arange(count), np.concatenate(xy), np.concatenate(depths)
    )


def offsets(count: int) -> list[int]:
    """The frames before and after that a frame of a clip of `count` frames is matched with."""
    gaps = [gap for gap in GAPS if gap <= max(NEAR, LONGEST * count)]
    return [-gap for gap in reversed(gaps)] + gaps


def _corners(image: np.ndarray, static: np.ndarray) -> np.ndarray:
    """(N, 2) static pixels with texture in two directions: the best of each cell."""
    strength = cv2.cornerMinEigenVal(image.astype(np.float32) / 255, 5)
    strength = np.where(static, strength, 0)
    strength[:4], strength[-4:], strength[:, :4], strength[:, -4:] = 0, 0, 0, 0
    best = cv2.dilate(strength, np.ones((SPACING, SPACING)))
    rows, columns = np.nonzero((strength == best) & (strength > MIN_TEXTURE))
    return np.column_stack([columns, rows]).astype(np.float64)


def _depths(
    frames: list[np.ndarray],
    static: list[np.ndarray],
    cameras: list[Pinhole],
    i: int,
    j: int,
    pixels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) planar depth in frame i of `pixels` (N, 2) by their match in frame j, and the rays' angle in degrees.

    NaN, and 0, where that fails.
    """
    here, there = cameras[i], cameras[j]
    if len(pixels) == 0 or np.linalg.norm(here.centre - there.centre) < 1e-9:
        return np.full(len(pixels), np.nan), np.zeros(len(pixels))
    forward, backward = flow_pair(frames[i], frames[j])
    column, row = pixels.astype(int).T
    target = pixels + forward[row, column]
    fundamental = fundamental_from_poses(here.k, here.w2c, there.k, there.w2c)
    good = consistent(forward, backward)[row, column]
    good &= sampson_distance(fundamental, pixels, target) < MAX_EPIPOLAR
    height, width = frames[j].shape
    there_column = np.clip(np.rint(target[:, 0]).astype(int), 0, width - 1)
    there_row = np.clip(np.rint(target[:, 1]).astype(int), 0, height - 1)
    good &= static[j][there_row, there_column]
    depth, angle = two_view_depth(here, there, pixels, target)
    good &= (depth > 0) & (angle > MIN_ANGLE)
    return np.where(good, depth, np.nan), np.where(good, angle, 0)


def two_view_depth(
    here: Pinhole, there: Pinhole, pixels: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth (N,) in `here` of `pixels` (N, 2) seen at `target` (N, 2) in `there`, and the rays' angle, degrees.

    Least squares of the two linear equations u (z r_3 + t_3) = z r_12 + t_12, with r the turned ray.
    """
    rotation = there.w2c[:, :3] @ here.w2c[:, :3].T
    t = there.w2c[:, 3] - rotation @ here.w2c[:, 3]
    ones = np.ones((len(pixels), 1))
    r = np.hstack([pixels, ones]) @ np.linalg.inv(here.k).T @ rotation.T
    u = np.hstack([target, ones]) @ np.linalg.inv(there.k).T
    a = u[:, :2] * r[:, 2:] - r[:, :2]
    b = t[:2] - u[:, :2] * t[2]
    depth = (a * b).sum(-1) / np.maximum((a**2).sum(-1), 1e-18)
    cosine = (r * u).sum(-1) / np.linalg.norm(r, axis=-1) / np.linalg.norm(u, axis=-1)
    return depth, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def agreed(estimates: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(N,) mean of those of the `estimates` (K, N) that agree with their median; NaN unless two do.

    In both an estimate counts by the square of the `angles` (K, N) between its rays, 0 where it failed: an error of the
    match by a pixel moves the depth by the inverse of the angle.
    """
    weights = angles**2
    order = np.argsort(np.where(weights > 0, estimates, np.inf), axis=0)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    middle = np.take_along_axis(order, np.argmax(reached >= 0.5 * reached[-1], axis=0)[None], axis=0)
    median = np.take_along_axis(estimates, middle, axis=0)[0]
    with np.errstate(invalid="ignore"):
        near = (weights > 0) & (np.abs(estimates - median) < AGREEMENT * median)
    mass = np.where(near, weights, 0)
    mean = (mass * np.where(near, estimates, 0)).sum(0) / np.maximum(mass.sum(0), 1e-12)
    return np.where(near.sum(0) >= 2, mean, np.nan)
