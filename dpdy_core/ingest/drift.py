"""Motion that several frames show together: flow to near and far ones that no point which stands still explains.

Motion along the epipolar lines looks like parallax to two frames; to several it is a depth that they do not agree on.
Letters: d inverse planar depth; J frames that a frame is compared with.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import cv2
import numpy as np

from dpdy_core.ingest.flow import GAPS, Flows, consistent, flow_both_ways, grey, pixel_grid
from dpdy_core.ingest.pinhole import Pinhole

FEWEST = 3  # flows that a point must be followed by: two fit many depths
ITERATIONS = 4
LOOSE = 1.0  # pixels: flows farther off count ever less in the point's depth (Cauchy weights)
BLUR = 0.7  # pixels
GRADIENT_BLUR = 2.5  # pixels: motion of a plain surface shows at its edges
SAME_LOOK = 10.0  # grey levels by which a followed point may change; from twice that on the flow is wrong
BLOCK = 16  # frames whose flows are held at once


def drifts(
    images: np.ndarray, cameras: list[Pinhole], pool: Executor, check: Callable[[int, int], None]
) -> tuple[list[np.ndarray], Flows]:
    """(H, W) float32 each of `images` (T, H, W, 3) uint8 RGB: by how many grey levels a pixel departs from standing.

    And the flows between neighbouring frames, both ways, (H, W, 2) float16, NaN where the two contradict.

    For each pixel the static point that explains its flows best is found; what is left, in pixels (root mean square),
    times the gradient around is how much of the picture's change it does not explain: flow is unsure where the picture
    is plain. 0 where the flow is not confirmed by the way back and by what the frames show: beside a mover it is often
    the mover's. `check(done, total)` is called after each frame and may raise.
    """
    count = len(images)
    greys = [grey(image) for image in images]
    smooth = [cv2.GaussianBlur(image, (0, 0), BLUR) for image in images]
    flows: Flows = {}
    neighbouring: Flows = {}
    found: list[np.ndarray] = []
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        begin = max(0, start - GAPS[-1])
        flows = {pair: flow for pair, flow in flows.items() if min(pair) >= begin}
        for gap in GAPS:
            ahead = range(begin, min(end + GAPS[-1] - gap, count - gap))  # longer ones start from shorter
            lacking = [i for i in ahead if (i, i + gap) not in flows]
            for both in list(pool.map(lambda i: flow_both_ways(greys, i, i + gap, flows), lacking)):  # noqa: B023
                flows |= both
        for drift in pool.map(partial(_drift, smooth, cameras, flows), range(start, end)):
            found.append(drift)
            check(len(found), count)
        for i, j in flows:
            if abs(i - j) == 1 and (i, j) not in neighbouring:
                confirmed = consistent(flows[i, j], flows[j, i])[..., None]
                neighbouring[i, j] = np.where(confirmed, flows[i, j], np.nan).astype(np.float16)
    return found, neighbouring


def _drift(smooth: list[np.ndarray], cameras: list[Pinhole], flows: Flows, i: int) -> np.ndarray:
    """(H, W) float32 of frame `i`; see `drifts`."""
    others = [j for gap in GAPS for j in (i + gap, i - gap) if (i, j) in flows]
    if len(others) < FEWEST:
        return np.zeros(smooth[i].shape[:2], np.float32)
    there = [flows[i, j] for j in others]
    valid = np.stack([consistent(flow, flows[j, i]) for flow, j in zip(there, others, strict=True)])
    looks = np.stack([_change(smooth[i], smooth[j], flow) for flow, j in zip(there, others, strict=True)])
    looks[~valid] = np.inf
    looks.sort(axis=0)
    count = valid.sum(0)
    middle = np.take_along_axis(looks, np.maximum((count - 1) // 2, 0)[None], axis=0)[0]
    trust = np.where(count >= FEWEST, np.clip(2 - middle / SAME_LOOK, 0, 1), 0)
    left = unexplained(np.stack(there), valid, cameras[i], [cameras[j] for j in others])
    drift: np.ndarray = (left * trust * _gradient(smooth[i])).astype(np.float32)
    return drift


def unexplained(flows: np.ndarray, valid: np.ndarray, camera: Pinhole, others: list[Pinhole]) -> np.ndarray:
    """(H, W) pixels, root mean square, by which the `valid` (J, H, W) bool of `flows` (J, H, W, 2) miss one point.

    The point of each pixel of `camera` is the static one that the flows to the `others` agree on best: its d is linear
    in the homogeneous coordinates that the others see, and is found by least squares with robust weights.
    """
    height, width = flows.shape[1:3]
    grid = pixel_grid(width, height).reshape(-1, 2)
    rays = np.column_stack([grid, np.ones(len(grid))]) @ np.linalg.inv(camera.k).T
    weights = valid.reshape(len(valid), -1).astype(np.float32)
    base, slope = np.empty((2, len(others), len(grid), 3), np.float32)
    for j, other in enumerate(others):
        turn = other.w2c[:, :3] @ camera.w2c[:, :3].T
        seen = rays @ (other.k @ turn).T
        shift = other.k @ (other.w2c[:, 3] - turn @ camera.w2c[:, 3])
        target = grid + flows[j].reshape(-1, 2)
        base[j] = np.column_stack([seen[:, :2] - target * seen[:, 2:], seen[:, 2]])
        slope[j] = np.column_stack([shift[:2] - target * shift[2], np.full(len(grid), shift[2])])
    d, counted = np.zeros(len(grid), np.float32), weights
    for _ in range(ITERATIONS):
        z = np.maximum(base[..., 2] + d * slope[..., 2], 1e-3)
        pull = counted / z**2
        over = (pull[..., None] * slope[..., :2] * base[..., :2]).sum((0, 2))
        under = (pull[..., None] * slope[..., :2] ** 2).sum((0, 2))
        d = np.maximum(-over / np.maximum(under, 1e-12), 0)
        z = np.maximum(base[..., 2] + d * slope[..., 2], 1e-3)
        off = ((base[..., :2] + d[:, None] * slope[..., :2]) ** 2).sum(-1) / z**2
        counted = weights / (1 + off / LOOSE**2)
    left: np.ndarray = np.sqrt((weights * off).sum(0) / np.maximum(weights.sum(0) - 0.5, 1))  # of 2 J numbers 1 is d
    return left.reshape(height, width)


def _change(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """(H, W) float32 grey levels, in the most different channel, between a point of `first` and where it flowed."""
    height, width = flow.shape[:2]
    there = cv2.remap(second, pixel_grid(width, height) + flow, None, cv2.INTER_LINEAR)
    off: np.ndarray = cv2.blur(cv2.absdiff(first, there).max(-1).astype(np.float32), (3, 3))
    return off


def _gradient(image: np.ndarray) -> np.ndarray:
    """(H, W) float32 grey levels per pixel, in the channel that changes most, around each pixel."""
    smooth = image.astype(np.float32)
    across, down = (cv2.Sobel(smooth, -1, x, 1 - x, ksize=3, scale=1 / 8) for x in (1, 0))
    gradient: np.ndarray = cv2.GaussianBlur(np.hypot(across, down).max(-1), (0, 0), GRADIENT_BLUR)
    return gradient
