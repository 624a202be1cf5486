"""Losses on disparity, in a known scale and up to an unknown scale and shift."""

from torch import Tensor

from dpdy_core.optimise.reconstruction import masked_mean


def aligned_depth_loss(disparity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """L1 between rendered and target disparity (R,), both in one scale for the whole clip."""
    return masked_mean((disparity - target).abs(), weight)


def affine_invariant_depth_loss(disparity: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - the correlation of rendered disparity (R,) and the target (R,): whatever the clip's scale and shift may be.

    It is half the mean square of their difference once both have mean 0 and variance 1: the loss of Ranftl et al. 2022
    (eq. 6), with mean and deviation in place of median and mean deviation, over rays of all frames. Its gradient is
    orthogonal to constants and to the rendered disparity, so that a step changes the render's shape and neither its
    scale nor its shift; and it fades where the shape is right. 1 where either is flat.

    A target fitted to the render by least squares instead is flat where the two do not agree yet, as at the beginning,
    and flattens the scene; medians and mean deviations let few pixels beside the camera pay for all others.
    """
    dx, dy = target - masked_mean(target, weight), disparity - masked_mean(disparity, weight)
    spread = (masked_mean(dx * dx, weight) * masked_mean(dy * dy, weight)).clamp_min(1e-12).sqrt()
    return 1 - masked_mean(dx * dy, weight) / spread
