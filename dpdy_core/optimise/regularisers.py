"""Terms that need no observation: separation of the fields, compact rays, the proposal."""

import torch
from torch import Tensor

SKEW = 2.0  # D2NeRF, section 3.3: above one, an undecided sample becomes static


def skewed_entropy(ratio: Tensor, weights: Tensor) -> Tensor:
    """Binary entropy of `ratio`**k (R, S), k = SKEW, where there is matter (detached `weights` (R, S)).

    D2NeRF (Wu et al. 2022), equation 7; the skew prefers the static field.
    """
    skewed = (ratio**SKEW).clamp(1e-6, 1 - 1e-6)
    entropy = -(skewed * skewed.log() + (1 - skewed) * (1 - skewed).log())
    return (weights.detach() * entropy).sum(dim=-1).mean()


def dynamic_sparsity(dynamic: Tensor) -> Tensor:
    """Mean weight (R,) of the dynamic field (RoDynRF's mean dynamicness)."""
    return dynamic.mean()


def shadow_sparsity(shadow: Tensor) -> Tensor:
    """Mean squared shadow (R, S): places are lit unless a frame says otherwise (D2NeRF, its shadow field)."""
    return shadow.square().mean()


def distortion(edges: Tensor, weights: Tensor) -> Tensor:
    """Spread of the weights (R, S) along each ray with `edges` (R, S+1) in s; mip-NeRF 360, equation 15, in O(S)."""
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    mass_before = weights.cumsum(dim=-1) - weights
    moment_before = (weights * middle).cumsum(dim=-1) - weights * middle
    between = 2 * (weights * (middle * mass_before - moment_before)).sum(dim=-1)
    within = (weights.square() * (edges[:, 1:] - edges[:, :-1])).sum(dim=-1) / 3
    return (between + within).mean()


def interlevel(edges: Tensor, weights: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """How far the fine histogram (R, S) exceeds what the proposal (R, P) allows; mip-NeRF 360, equation 13.

    Trains the proposal only: the fine weights are detached.
    """
    edges, weights = edges.detach().contiguous(), weights.detach()
    mass = torch.cat([torch.zeros_like(proposal_weights[:, :1]), proposal_weights.cumsum(dim=-1)], dim=-1)
    last = proposal_edges.shape[-1] - 1
    places = proposal_edges.contiguous()
    left = (torch.searchsorted(places, edges[:, :-1].contiguous(), right=True) - 1).clamp(0, last)
    right = torch.searchsorted(places, edges[:, 1:].contiguous(), right=False).clamp(0, last)
    bound = mass.gather(-1, right) - mass.gather(-1, left)
    return ((weights - bound).clamp_min(0).square() / (weights + 1e-7)).sum(dim=-1).mean()
