"""Losses on disparity, in a known scale and up to an unknown scale and shift."""

import torch
from torch import Tensor

from dpdy_core.optimise.reconstruction import masked_mean


def aligned_depth_loss(disparity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 between rendered and target disparity (R,), both in one scale for the whole clip."""
    return masked_mean((disparity - target).abs(), weight)


def affine_invariant_depth_loss(
    disparity: Tensor, target: Tensor, weight: Tensor, frame: Tensor, frames: int
) -> Tensor:
    """RMS difference of rendered disparity (R,) and the target (R,) after the best scale and shift for each frame.

    The scale and shift that map the *target* onto the detached render are solved in closed form by weighted least
    squares, per frame (`frame` (R,) in [0, frames)). The residual is then orthogonal to the target and to constants,
    and so is the gradient of each frame's RMS: a step changes the shape of the render's disparity and neither its
    scale nor its shift. Normalising the render by its own deviation instead pulls the scene towards the cameras.
    """
    with torch.no_grad():
        scale, shift = fit_scale_and_shift(target, disparity, weight, frame, frames)
        aligned = scale[frame] * target + shift[frame]
    empty = torch.zeros(frames, dtype=disparity.dtype, device=disparity.device)
    mass = empty.index_add(0, frame, weight)
    squares = empty.index_add(0, frame, weight * (disparity - aligned).square()) / mass.clamp_min(1e-9)
    return masked_mean((squares + 1e-10).sqrt(), mass)


def fit_scale_and_shift(x: Tensor, y: Tensor, weight: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Scale and shift (groups,) that bring `x` closest to `y` (R,) in each group, in the least-squares sense.

    The scale is never negative. Groups without spread get the scale zero: their mean alone.
    """

    def total(values: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=x.dtype, device=x.device).index_add(0, group, values)

    mass = total(weight).clamp_min(1e-9)
    mean_x, mean_y = total(weight * x) / mass, total(weight * y) / mass
    dx, dy = x - mean_x[group], y - mean_y[group]
    variance = total(weight * dx * dx) / mass
    covariance = total(weight * dx * dy) / mass
    scale = (covariance / variance.clamp_min(1e-12)).clamp_min(0)
    return scale, mean_y - scale * mean_x
