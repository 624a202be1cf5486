"""How surely each pixel of a clip moves: dense flow between near and far frames against the camera's own motion."""

from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np

from dpdy_core.ingest.epipolar import CameraMotion, Model, fit_motion, motion_from_poses
from dpdy_core.ingest.flow import GAPS, Flows, consistent, flow_both_ways, pixel_grid
from dpdy_core.ingest.pinhole import Pinhole

FIT_POINTS = 1500
MIN_CONSISTENT = 0.4  # flow between frames that share less than this says nothing
NOISE_SIGMAS = 6.0
LEVELS = 64  # steps of a stored score per threshold: scores are kept in 8 bits
NONE = 255
CARRY_SLACK = 0.1  # strict, or slow movers leave a trail on the background that they pass
FADE = 0.97  # what evidence of motion keeps from one frame to the next


def motion_scores(
    frames: list[np.ndarray],
    threshold: float,
    cameras: list[Pinhole] | None,
    check: Callable[[int, int], None],
) -> tuple[np.ndarray, Counter[Model]]:
    """(T, H, W) float32 scores, above 1 = moving, and how often each model of the camera's motion was used.

    `frames` are T (H, W) uint8, `threshold` is the residual in pixels of a moving pixel, `cameras` the known cameras
    of the frames in time order, if any. `check(done, total)` is called after each pair and may raise.
    """
    total = sum(max(len(frames) - gap, 0) for gap in GAPS)
    evidence: list[list[np.ndarray]] = [[] for _ in frames]
    models: Counter[Model] = Counter()
    shorter: Flows = {}
    neighbours: Flows = {}
    done = 0
    for gap in GAPS:
        flows: Flows = {}
        for i in range(len(frames) - gap):
            flows |= flow_both_ways(frames, i, i + gap, shorter)
            for a, b in ((i, i + gap), (i + gap, i)):
                score = _pair_score(flows, a, b, threshold, cameras, models)
                if score is not None:
                    evidence[a].append(score)
            done += 1
            check(done, total)
        neighbours = neighbours or flows
        shorter = flows
    return _carry([_combine(e, frames[0].shape) for e in evidence], neighbours), models


def _pair_score(
    flows: Flows, a: int, b: int, threshold: float, cameras: list[Pinhole] | None, models: Counter[Model]
) -> np.ndarray | None:
    """(H, W) uint8 residual of frame a against b in steps of the noise-adapted threshold, NONE where flow failed."""
    forward = flows[a, b]
    height, width = forward.shape[:2]
    usable = consistent(forward, flows[b, a])
    if usable.mean() < MIN_CONSISTENT:
        return None
    first = pixel_grid(width, height).reshape(-1, 2)
    second = first + forward.reshape(-1, 2)
    chosen = np.flatnonzero(usable)
    chosen = chosen[:: max(1, len(chosen) // FIT_POINTS)]
    if cameras is None:
        motion: CameraMotion = fit_motion(first[chosen], second[chosen], threshold)
    else:
        motion = motion_from_poses(cameras[a], cameras[b], first[chosen], second[chosen])
    models[motion.model] += 1
    residual = motion.residual(first, second).reshape(height, width)
    values = residual[usable]
    middle = np.median(values)
    noise = middle + NOISE_SIGMAS * 1.4826 * np.median(np.abs(values - middle))
    score = np.minimum(residual / max(threshold, float(noise)) * LEVELS, NONE - 1).astype(np.uint8)
    score[~usable] = NONE
    return score


def _combine(evidence: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) float32 upper quartile of the scores over the neighbours; 0 where there is none.

    Not the median: what moves slowly or pauses is seen only in some of them.
    """
    if not evidence:
        return np.zeros(shape, np.float32)
    ordered = np.sort(np.stack(evidence), axis=0)  # NONE sorts last
    count = (ordered != NONE).sum(0)
    rank = np.maximum(np.ceil(0.75 * count).astype(int) - 1, 0)
    value = np.take_along_axis(ordered, rank[None], axis=0)[0].astype(np.float32) / LEVELS
    return np.where(count > 0, value, 0).astype(np.float32)


def _carry(scores: list[np.ndarray], flows: Flows) -> np.ndarray:
    """Carry evidence along the flow through the clip, both ways: what moves at one time is masked when it rests."""
    carried = [score.copy() for score in scores]
    count = len(scores)
    for order, back in ((range(1, count), -1), (range(count - 2, -1, -1), 1)):
        current = scores[order.start - 1 if back < 0 else count - 1] if count else None
        for i in order:
            flow = flows[i, i + back]
            height, width = flow.shape[:2]
            moved = cv2.remap(current, pixel_grid(width, height) + flow, None, cv2.INTER_LINEAR)
            current = np.maximum(scores[i], FADE * moved * consistent(flow, flows[i + back, i], CARRY_SLACK))
            carried[i] = np.maximum(carried[i], current)
    return np.stack(carried)
