"""The objective: every term with its weight over training progress, and their one weighted sum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dpdy_core.config import FieldsConfig, LossConfig
from dpdy_core.optimise.depth_loss import affine_invariant_depth_loss, aligned_depth_loss
from dpdy_core.optimise.ray_batch import RayBatch
from dpdy_core.optimise.reconstruction import colour_loss, motion_mask_loss
from dpdy_core.optimise.regularisers import distortion, dynamic_sparsity, interlevel, shadow_sparsity, skewed_entropy
from dpdy_core.render.renderer import RayRendering
from dpdy_core.section import Number, Ramp

Rendered = TypeVar("Rendered")


@dataclass(frozen=True)
class Observation:
    """One batch: what was observed and what was rendered."""

    batch: RayBatch
    rendering: RayRendering
    unit: float  # world units in one normalised unit: disparities are compared in normalised units


@dataclass(frozen=True)
class Term(Generic[Rendered]):
    """One loss: a weight over training progress and a function to a 0-dim tensor."""

    name: str
    weight: Ramp
    value: Callable[[Rendered], Tensor]


def observed_terms(
    losses: LossConfig, fields: FieldsConfig, has_depth: bool, has_motion: bool
) -> list[Term[Observation]]:
    """The terms that compare training rays with the frames, as far as this clip and these settings have them.

    With blend="learned" a field may be anything where its weight is zero, so the dynamic one has a loss of its own on
    all pixels (RoDynRF's train.py: 1.0 beside 3.0 for both together), as the static one has on pixels that stand still.
    """
    terms = [Term("colour", losses.w_colour, _colour)]
    if has_depth and losses.depth_loss == "aligned":
        terms.append(Term("depth", losses.w_depth, _aligned_depth))
    if has_depth and losses.depth_loss == "affine":
        terms.append(Term("depth", losses.w_depth, _affine_depth))
    if fields.split and fields.blend == "learned":
        terms.append(Term("dynamic", losses.w_dynamic, _dynamic_colour))
    if fields.split and has_motion:
        terms.append(Term("motion_mask", losses.w_motion_mask, _motion_mask))
        terms.append(Term("static", losses.w_static, _static_colour))
    return [term for term in terms if is_used(term.weight)]


def free_terms(losses: LossConfig, fields: FieldsConfig) -> list[Term[RayRendering]]:
    """The terms that need no observation: they hold on training rays and on novel views alike."""
    terms: list[Term[RayRendering]] = [
        Term("distortion", losses.w_distortion, lambda r: distortion(r.edges, r.weights)),
        Term("interlevel", losses.w_interlevel, _interlevel),
    ]
    if fields.split:
        terms.append(Term("entropy", losses.w_entropy, lambda r: skewed_entropy(r.ratio, r.weights)))
        terms.append(Term("sparsity", losses.w_sparsity, lambda r: dynamic_sparsity(r.dynamic)))
    if fields.split and fields.shadows:
        terms.append(Term("shadow", losses.w_shadow, lambda r: shadow_sparsity(r.shadow)))
    return [term for term in terms if is_used(term.weight)]


def weighted_sum(
    terms: Sequence[Term[Rendered]], rendered: Rendered, progress: Number
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the terms at training `progress` in [0, 1], and each unweighted value by name (detached)."""
    values = {term.name: term.value(rendered) for term in terms}
    total = torch.stack([term.weight.at(progress) * values[term.name] for term in terms]).sum()
    return total, {name: value.detach() for name, value in values.items()}


def is_used(weight: Ramp) -> bool:
    """Whether the weight is above 0 at any time."""
    return weight.start > 0 or weight.end > 0


def _colour(o: Observation) -> Tensor:
    return colour_loss(o.rendering.colour, o.batch.colour, o.batch.observed)


def _static_colour(o: Observation) -> Tensor:
    assert o.rendering.static_colour is not None
    return colour_loss(o.rendering.static_colour, o.batch.colour, o.batch.observed * ~o.batch.moving)


def _dynamic_colour(o: Observation) -> Tensor:
    assert o.rendering.dynamic_colour is not None
    return colour_loss(o.rendering.dynamic_colour, o.batch.colour, o.batch.observed)


def _motion_mask(o: Observation) -> Tensor:
    return motion_mask_loss(o.rendering.dynamic, o.batch.moving, o.batch.observed)


def _depth_weight(o: Observation) -> Tensor:
    return o.batch.observed * (o.batch.depth > 0)


def _target_disparity(o: Observation) -> Tensor:
    return o.unit / o.batch.depth.clamp_min(1e-6 * o.unit)


def _aligned_depth(o: Observation) -> Tensor:
    return aligned_depth_loss(o.rendering.disparity * o.unit, _target_disparity(o), _depth_weight(o))


def _affine_depth(o: Observation) -> Tensor:
    weight = _depth_weight(o)
    target = _target_disparity(o) * (weight > 0)
    return affine_invariant_depth_loss(o.rendering.disparity * o.unit, target, weight)


def _interlevel(r: RayRendering) -> Tensor:
    return interlevel(r.edges, r.weights, r.proposal_edges, r.proposal_weights)
