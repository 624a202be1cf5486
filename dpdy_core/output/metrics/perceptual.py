"""Perceptual metrics: LPIPS where its weights are, and FLIP, which needs none."""

import importlib.util
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dpdy_core.output.metrics.arrays import Array, as_images, as_mask
from dpdy_core.output.metrics.lpips_network import LpipsNetwork, weights_file

LEAST_LPIPS_SIDE = 31  # pixels that its five layers need


def lpips(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """LPIPS with AlexNet (Zhang et al. 2018, version 0.1); with a mask, the mean of its spatial map there.

    None without the network's weights (`lpips_missing` says why), for an empty mask, or a side under 31 pixels.
    """
    x, y = as_images(a, b)
    chosen = None if mask is None else as_mask(mask, x)
    if (network := _network_for(x, chosen)) is None:
        return None
    if chosen is None:
        return float(network(x, y))
    return float(network.spatial(x, y)[chosen].mean())


def mlpips(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """DyCheck's masked LPIPS: both images times the mask, then the mean of the spatial map under the mask.

    None as in `lpips`. Source: dycheck/core/metrics/image.py.
    """
    x, y = as_images(a, b)
    held = torch.ones_like(x[..., 0], dtype=torch.bool) if mask is None else as_mask(mask, x)
    if (network := _network_for(x, held)) is None:
        return None
    return float(network.spatial(x * held[..., None], y * held[..., None])[held].mean())


def lpips_missing() -> str | None:
    """Why LPIPS cannot be computed; None where it can."""
    if weights_file().is_file():
        return None
    return f"the weights of its AlexNet are not on this machine ({weights_file().name} in PyTorch's hub folder)"


def flip(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Mean of NVIDIA's FLIP (Andersson et al. 2020) for sRGB pictures seen at 67 pixels a degree; lower is better.

    With a mask, the mean of the map there; None for an empty one, or where `flip_missing` says why.
    """
    x, y = as_images(a, b)
    if flip_missing() is not None:
        return None
    differences = flip_map(x, y)
    if mask is not None:
        differences = differences[as_mask(mask, x)]
    return float(differences.mean()) if differences.numel() else None


def flip_map(a: Array, b: Array) -> Tensor:
    """(H, W) float64 FLIP in [0, 1] of each pixel, on the device of `a`. Needs the package flip-evaluator."""
    import flip_evaluator  # optional: it has no wheel for every platform

    x, y = as_images(a, b)
    rendered, true = (np.ascontiguousarray(image.cpu().numpy(), dtype=np.float32) for image in (x, y))
    values = flip_evaluator.evaluate(true, rendered, "LDR", applyMagma=False, computeMeanError=False)[0]
    return torch.from_numpy(values[..., 0].astype(np.float64)).to(x.device)


def flip_missing() -> str | None:
    """Why FLIP cannot be computed; None where it can."""
    found = importlib.util.find_spec("flip_evaluator") is not None
    return None if found else "the package flip-evaluator is not installed"


def _network_for(image: Tensor, mask: Tensor | None) -> LpipsNetwork | None:
    if lpips_missing() or min(image.shape[:2]) < LEAST_LPIPS_SIDE or (mask is not None and not bool(mask.any())):
        return None
    return _network(str(image.device))


@cache
def _network(device: str) -> LpipsNetwork:
    return LpipsNetwork.load().to(device)
