"""Errors of depth (Eigen et al. 2014), over the (masked) pixels with a true depth > 0. Depths are (H, W) planar z."""

import torch
from torch import Tensor

from dpdy_core.output.metrics.arrays import Array, as_mask


def median_scale(depth: Array, truth: Array, mask: Array | None = None) -> float | None:
    """The factor that brings `depth` to the true median (Zhou et al. 2017)."""
    known = _known(depth, truth, mask)
    return None if known is None else float(known[1].median() / known[0].median().clamp(min=1e-9))


def abs_rel(depth: Array, truth: Array, mask: Array | None = None) -> float | None:
    """Mean of |depth - truth| / truth."""
    known = _known(depth, truth, mask)
    return None if known is None else float(((known[0] - known[1]).abs() / known[1]).mean())


def rmse(depth: Array, truth: Array, mask: Array | None = None) -> float | None:
    """Root of the mean squared error, in the unit of the depths."""
    known = _known(depth, truth, mask)
    return None if known is None else float((known[0] - known[1]).square().mean().sqrt())


def delta1(depth: Array, truth: Array, mask: Array | None = None) -> float | None:
    """Share of the pixels whose depth and truth differ by a factor below 1.25."""
    known = _known(depth, truth, mask)
    if known is None:
        return None
    ratio = known[0].clamp(min=1e-9) / known[1]
    return float((torch.maximum(ratio, 1 / ratio) < 1.25).double().mean())


def _known(depth: Array, truth: Array, mask: Array | None) -> tuple[Tensor, Tensor] | None:
    """Both depths where the truth is known, as float64; None where it nowhere is."""
    true = torch.as_tensor(truth).double()
    found = torch.as_tensor(depth, device=true.device).double()
    if found.shape != true.shape or true.ndim != 2:
        raise ValueError(f"depths must both be (H, W), not {tuple(found.shape)} and {tuple(true.shape)}")
    known = true > 0 if mask is None else (true > 0) & as_mask(mask, true)
    return (found[known], true[known]) if bool(known.any()) else None
