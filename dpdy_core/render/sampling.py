"""Where samples lie along a ray.

A ray runs over s in [0, 1]; s is linear in disparity, so that s = 0 is the near and s = 1 the far planar depth.
"""

import torch
from torch import Tensor


def depth_at(s: Tensor, near: float, far: float) -> Tensor:
    """Planar depth at `s` in [0, 1]."""
    return 1 / (s / far + (1 - s) / near)


def stratified(rays: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Edges (R, count + 1) in s of equal intervals; a generator moves the inner ones by up to half an interval."""
    edges = torch.linspace(0, 1, count + 1, device=device).expand(rays, -1)
    if generator is None:
        return edges
    shift = torch.rand((rays, count + 1), device=device, generator=generator) - 0.5
    shift[:, 0].zero_()  # one by one: a list of indices would be copied to the device, and the host would wait
    shift[:, -1].zero_()
    return edges + shift / count


def importance(
    edges: Tensor, weights: Tensor, count: int, generator: torch.Generator | None, padding: float = 0.01
) -> Tensor:
    """Sorted edges (R, count + 1) drawn from the piecewise-constant density of `weights` (R, S) over `edges` (R, S+1).

    Inverse-CDF sampling (mip-NeRF 360, section 3); `padding` is added to each weight so that no interval starves.
    Without a generator the quantiles are the middles of equal shares. Gradients stop here.
    """
    weights = weights.detach() + padding / weights.shape[-1]
    mass = weights.cumsum(dim=-1)
    cdf = torch.cat([torch.zeros_like(mass[:, :1]), mass / mass[:, -1:]], dim=-1)
    share = (torch.arange(count + 1, device=edges.device) / (count + 1)).expand(len(edges), -1)
    if generator is None:
        quantile = share + 0.5 / (count + 1)
    else:
        quantile = share + torch.rand(share.shape, device=edges.device, generator=generator) / (count + 1)
    upper = torch.searchsorted(cdf, quantile.contiguous(), right=True).clamp(1, edges.shape[-1] - 1)
    low_cdf, high_cdf = cdf.gather(-1, upper - 1), cdf.gather(-1, upper)
    low, high = edges.gather(-1, upper - 1), edges.gather(-1, upper)
    inside = ((quantile - low_cdf) / (high_cdf - low_cdf).clamp_min(1e-9)).clamp(0, 1)
    return (low + inside * (high - low)).detach()
