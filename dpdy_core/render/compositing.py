"""From densities along rays to colours: the quadrature of volume rendering, for one field and for two."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dpdy_core.scene.scene import FieldSamples


@dataclass(frozen=True)
class Composite:
    """How much each sample contributes to its ray."""

    weights: Tensor  # (R, S)
    dynamic_weights: Tensor  # (R, S) the part of `weights` that the dynamic field owns
    colour: Tensor  # (R, 3) without background
    ratio: Tensor  # (R, S) dynamic share of each sample, in [0, 1]


def transmittance(optical_depth: Tensor) -> Tensor:
    """Light (R, S) that reaches each sample, from the density times length (R, S) of all samples."""
    before = torch.cat([torch.zeros_like(optical_depth[:, :1]), optical_depth[:, :-1].cumsum(dim=-1)], dim=-1)
    return torch.exp(-before)


def volume_weights(density: Tensor, lengths: Tensor) -> Tensor:
    """Weights (R, S) of one field's samples (Max 1995; NeRF, equation 3): transmittance times alpha."""
    optical_depth = density * lengths
    return transmittance(optical_depth) * -torch.expm1(-optical_depth)


def composite(samples: FieldSamples, lengths: Tensor, blend: Literal["additive", "learned"]) -> Composite:
    """Both fields rendered together over intervals of `lengths` (R, S) in normalised units.

    additive: densities add up and colours mix by density, the exact quadrature of two media in one place (D2NeRF,
    DynIBaR). learned: alphas are weighted by b and 1 - b and attenuate in turn (NSFF, equation 8); a sample's weight
    is shared in proportion, so that the weights of a ray never exceed one.
    """
    if blend == "additive":
        density = samples.static_density + samples.dynamic_density
        ratio = samples.dynamic_density / density.clamp_min(1e-8)
        weights = volume_weights(density, lengths)
    else:
        dynamic = -torch.expm1(-samples.dynamic_density * lengths) * samples.blend
        static = -torch.expm1(-samples.static_density * lengths) * (1 - samples.blend)
        ratio = dynamic / (dynamic + static).clamp_min(1e-8)
        passing = (1 - dynamic) * (1 - static)
        weights = transmittance(-passing.clamp_min(1e-10).log()) * (1 - passing)  # no cumprod: its gradient waits
    dynamic_weights = weights * ratio
    colour = (dynamic_weights[..., None] * samples.dynamic_colour).sum(dim=1)
    colour = colour + ((weights - dynamic_weights)[..., None] * samples.static_colour).sum(dim=1)
    return Composite(weights, dynamic_weights, colour, ratio)
