"""Depth of what moves, which comparing frames does not give: a mover stands on the ground where its mask ends."""

import cv2
import numpy as np

LEAST = 4e-4  # share of the picture below which a patch is no mover
FEET = 0.1  # share of a mover's height that counts as its feet
REACH = 0.06  # of the picture's longer side: how far round the feet the ground is looked at
UNDER = 0.04  # of the picture's longer side: how far under its feet a mover may end where there is no ground
GROUND = 40  # pixels with depth that make a ground
BENT = 0.05  # median relative error of depth above which the ground is no plane
LEVEL = 0.2  # sine of the least angle at which the ground, seen on, rises out of the plane of sight: a wall has none
ROUNDS, HUBER = 10, 1.345


def standing_depth(depth: np.ndarray, moving: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """(H, W) float32 planar depth of the `moving` pixels (H, W) bool, 0 = none, from the `depth` (H, W) around them.

    `calibration` (3, 3) is the pinhole's, the centre of the first pixel at (0, 0). Each connected mover gets one depth,
    that of its support plane under its feet: the inverse depth of a plane is affine in the pixels, and its coefficients
    times the calibration are its normal. Where no plane lies around the feet, or a wall, as with a stalk in its pot, it
    is that of what shows right under them. It is a guess: too far for what hangs or flies, too near for what stands
    behind something. None is made where the feet are outside of the picture.
    """
    guessed = np.zeros_like(depth, np.float32)
    height, width = depth.shape
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(moving.astype(np.uint8), connectivity=8)
    reach = max(3, round(REACH * max(height, width)))
    for label in range(1, count):
        left, top, wide, tall, area = boxes[label]
        if area < LEAST * depth.size or top + tall >= height:
            continue
        own = labels[top : top + tall, left : left + wide] == label
        lowest = np.where(own.any(0), tall - 1 - own[::-1].argmax(0), -1)  # of each column
        columns = np.flatnonzero(lowest >= tall - 1 - FEET * tall)
        feet = np.stack([left + columns, top + lowest[columns]], 1)
        rows = slice(max(0, feet[:, 1].min() - reach), top + tall + reach)
        cols = slice(max(0, feet[:, 0].min() - reach), feet[:, 0].max() + reach + 1)
        plane = _plane(depth[rows, cols], (cols.start, rows.start))
        if plane is not None and _carries(plane @ calibration):
            inverse = float(np.median(feet @ plane[:2] + plane[2]))
        else:
            inverse = _under(depth, feet, max(2, round(UNDER * max(height, width))))
        if inverse > 0:
            guessed[top : top + tall, left : left + wide][own] = 1 / inverse
    return guessed


def _under(depth: np.ndarray, feet: np.ndarray, reach: int) -> float:
    """The median inverse depth of the first pixel with depth under each of the `feet` (F, 2), at most `reach` lower.

    0 where there is none.
    """
    rows = feet[:, 1, None] + np.arange(1, reach + 1)
    below = np.where(rows < len(depth), depth[np.minimum(rows, len(depth) - 1), feet[:, 0, None]], 0)
    first = below[np.arange(len(feet)), (below > 0).argmax(1)]
    return float(np.median(1 / first[first > 0])) if (first > 0).any() else 0.0


def _carries(normal: np.ndarray) -> bool:
    """Whether a plane with this normal (3,), x right, y down, z ahead, faces up in the picture."""
    return bool(normal[1] > LEVEL * np.linalg.norm(normal))


def _plane(depth: np.ndarray, corner: tuple[int, int]) -> np.ndarray | None:
    """(3,) with 1 / depth = p0 x + p1 y + p2 for most of the pixels that have depth, x and y in the whole picture."""
    y, x = np.nonzero(depth > 0)
    if len(x) < GROUND:
        return None
    inverse = 1 / depth[y, x].astype(np.float64)
    system = np.stack([x + corner[0], y + corner[1], np.ones(len(x))], 1).astype(np.float64)
    weight = np.ones(len(x))
    for _ in range(ROUNDS):
        root = np.sqrt(weight)
        plane, _, rank, _ = np.linalg.lstsq(system * root[:, None], inverse * root, rcond=None)
        if rank < 3:
            return None
        error = np.abs(system @ plane - inverse)
        noise = max(1.4826 * float(np.median(error)), 1e-12)
        weight = np.minimum(1, (HUBER * noise / np.maximum(error, 1e-12)) ** 2)
    bent = np.median(error / inverse)
    return None if bent > BENT else np.asarray(plane)
