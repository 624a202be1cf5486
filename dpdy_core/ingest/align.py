"""Bringing depth of unknown scale into the scale of the cameras, once for the whole clip.

Everything is compared in inverse depth (disparity), where near and far count alike.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

DepthKind = Literal["metric", "relative_depth", "relative_disparity"]

TRIALS = 200  # pairs of points that are tried as a line
HUBER = 1.345  # 95 % efficient at Gaussian noise (Huber, 1981)
ROUNDS = 20
CLIP_WEIGHT = 0.2  # weight of the clip's line in each frame's fit, as a share of the frame's usual number of points
MIN_POINTS = 8


@dataclass(frozen=True)
class Alignment:
    """target = scale * value + shift for each frame; errors are the clip's median relative error of depth."""

    lines: list[tuple[float, float]]
    residual: float  # of the aligned values
    level: float  # of one and the same depth everywhere: what the values must beat to be worth anything
    points: int


def fit_line(
    x: np.ndarray, y: np.ndarray, generator: np.random.Generator, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Scale and shift with y = scale * x + shift for most of the points (N,).

    Least median of squares over random pairs (Rousseeuw, 1984) as a start that bears up to half outliers, then
    iteratively reweighted least squares with Huber's weights. `weights` (N,) scale the points' say in both.
    """
    weights = np.ones(len(x)) if weights is None else weights
    share = weights / weights.sum()
    first, second = (generator.choice(len(x), TRIALS, p=share) for _ in range(2))
    run = x[second] - x[first]
    usable = np.abs(run) > 1e-9 * max(np.ptp(x), 1e-30)
    if not usable.any():
        return 0.0, float(np.median(y))
    slope = (y[second] - y[first])[usable] / run[usable]
    shift = y[first][usable] - slope * x[first][usable]
    errors = np.abs(slope[:, None] * x + shift[:, None] - y)
    best = int(np.argmin([_weighted_median(error, weights) for error in errors]))
    line = float(slope[best]), float(shift[best])
    for _ in range(ROUNDS):
        error = np.abs(line[0] * x + line[1] - y)
        noise = max(1.4826 * _weighted_median(error, weights), 1e-12)
        w = weights * np.minimum(1.0, HUBER * noise / np.maximum(error, 1e-12))
        w = np.where(error > 6 * noise, 0.0, w)
        mean_x, mean_y = (w @ x) / w.sum(), (w @ y) / w.sum()
        spread = w @ (x - mean_x) ** 2
        if spread <= 0:
            break
        scale = float(w @ ((x - mean_x) * (y - mean_y)) / spread)
        line = scale, float(mean_y - scale * mean_x)
    return line


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, 0.5 * reached[-1])]])


def align_clip(
    values: list[np.ndarray], depths: list[np.ndarray], kind: DepthKind, generator: np.random.Generator
) -> Alignment | None:
    """Fit the frames' `values` (K_t,) at sparse points to their true `depths` (K_t,); None where nothing can be fitted.

    A metric clip gets one scale; `relative_depth` a scale and shift of depth and `relative_disparity` of inverse
    depth, per frame but drawn to the median line of the clip, so that frames with few points keep the clip's scale.
    """
    everything, truth = np.concatenate(values), np.concatenate(depths)
    if len(truth) < 3 * MIN_POINTS:
        return None
    level = _relative_error(np.full(len(truth), np.median(truth)), truth)
    if kind == "metric":
        scale = float(np.exp(np.median(np.log(truth / everything))))
        return Alignment([(scale, 0.0)] * len(values), _relative_error(scale * everything, truth), level, len(truth))
    targets = [1 / d if kind == "relative_disparity" else d for d in depths]
    own = [
        fit_line(v, t, generator)
        for v, t in zip(values, targets, strict=True)
        if len(v) >= MIN_POINTS and np.ptp(v) > 0
    ]
    if not own:
        return None
    clip = float(np.median([s for s, _ in own])), float(np.median([t for _, t in own]))
    usual = float(np.median([len(v) for v in values if len(v) >= MIN_POINTS]))
    ends = np.percentile(everything, [10, 30, 50, 70, 90])
    weight = max(CLIP_WEIGHT * usual, MIN_POINTS) / len(ends)
    lines = []
    for v, t in zip(values, targets, strict=True):
        if len(v) < MIN_POINTS:
            lines.append(clip)
            continue
        weights = np.concatenate([np.ones(len(v)), np.full(len(ends), weight)])
        together = np.concatenate([t, clip[0] * ends + clip[1]])
        lines.append(fit_line(np.concatenate([v, ends]), together, generator, weights))
    fitted = np.concatenate([apply(v, line, kind) for v, line in zip(values, lines, strict=True)])
    return Alignment(lines, _relative_error(fitted, truth), level, len(truth))


def apply(values: np.ndarray, line: tuple[float, float], kind: DepthKind) -> np.ndarray:
    """Depth in camera units of `values` under a fitted line; inf where a disparity says beyond infinity.

    A relative depth that the line puts behind the camera becomes 0 = none.
    """
    fitted = line[0] * values + line[1]
    if kind != "relative_disparity":
        return np.maximum(fitted, 0)
    return np.where(fitted > 1e-9, 1 / np.maximum(fitted, 1e-9), np.inf)


def _relative_error(fitted: np.ndarray, truth: np.ndarray) -> float:
    finite = np.isfinite(fitted) & (fitted > 0)
    if not finite.any():
        return float("inf")
    return float(np.median(np.abs(fitted[finite] - truth[finite]) / truth[finite]))
