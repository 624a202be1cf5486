"""Losses that hold the scene to what the frames show."""

import torch
from torch import Tensor


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` (R,) under `weight` (R,); zero where all weights are zero."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def colour_loss(rendered: Tensor, observed: Tensor, weight: Tensor) -> Tensor:
    """Squared error of colours (R, 3), averaged over rays under `weight` (R,)."""
    return masked_mean((rendered - observed).square().mean(dim=-1), weight)


def motion_mask_loss(dynamic: Tensor, moving: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of the dynamic field's share (R,) of a ray against the motion mask (R,) bool."""
    share = dynamic.clamp(1e-4, 1 - 1e-4)
    return masked_mean(-torch.where(moving, share.log(), (1 - share).log()), weight)
