"""Compositing against a slow loop over one ray at a time, in float64."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch

from dpdy_core.render.compositing import composite, volume_weights
from dpdy_core.scene.scene import FieldSamples

RAYS, SAMPLES = 7, 9


def random_samples(seed: int = 0) -> tuple[FieldSamples, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=g, dtype=torch.float64)

    samples = FieldSamples(
        static_density=uniform(RAYS, SAMPLES) * 5,
        static_colour=uniform(RAYS, SAMPLES, 3),
        dynamic_density=uniform(RAYS, SAMPLES) * 5,
        dynamic_colour=uniform(RAYS, SAMPLES, 3),
        blend=uniform(RAYS, SAMPLES),
        shadow=torch.zeros(RAYS, SAMPLES, dtype=torch.float64),
    )
    return samples, uniform(RAYS, SAMPLES) * 0.3


def slow_ray(samples: FieldSamples, lengths: torch.Tensor, ray: int, blend: str) -> tuple[list[float], list[float]]:
    """Colour and weights of one ray by light that is swallowed sample by sample."""
    light, colour, weights = 1.0, [0.0, 0.0, 0.0], []
    for i in range(SAMPLES):
        s, d = float(samples.static_density[ray, i]), float(samples.dynamic_density[ray, i])
        b, length = float(samples.blend[ray, i]), float(lengths[ray, i])
        if blend == "additive":
            swallowed = 1 - math.exp(-(s + d) * length)
            share = d / (s + d)
        else:
            of_dynamic = (1 - math.exp(-d * length)) * b
            of_static = (1 - math.exp(-s * length)) * (1 - b)
            swallowed = 1 - (1 - of_dynamic) * (1 - of_static)
            share = of_dynamic / (of_dynamic + of_static)
        weights.append(light * swallowed)
        for c in range(3):
            mixed = share * samples.dynamic_colour[ray, i, c] + (1 - share) * samples.static_colour[ray, i, c]
            colour[c] += light * swallowed * float(mixed)
        light *= 1 - swallowed
    return colour, weights


@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_composite_matches_the_slow_loop(blend: Literal["additive", "learned"]) -> None:
    samples, lengths = random_samples()
    result = composite(samples, lengths, blend)
    for ray in range(RAYS):
        colour, weights = slow_ray(samples, lengths, ray, blend)
        torch.testing.assert_close(result.colour[ray], torch.tensor(colour, dtype=torch.float64))
        torch.testing.assert_close(result.weights[ray], torch.tensor(weights, dtype=torch.float64))


def published_colour(samples: FieldSamples, lengths: torch.Tensor, ray: int, blend: str) -> torch.Tensor:
    """Colour of one ray as the papers write it, sample by sample: each field's own alpha times the light that is left.

    additive: D2NeRF, equation 3 (light dims by both densities). learned: NSFF, equation 8 (by both weighted alphas).
    """
    light, colour = 1.0, torch.zeros(3, dtype=torch.float64)
    for i in range(samples.blend.shape[1]):
        b = float(samples.blend[ray, i])
        static = 1 - math.exp(-float(samples.static_density[ray, i] * lengths[ray, i]))
        dynamic = 1 - math.exp(-float(samples.dynamic_density[ray, i] * lengths[ray, i]))
        if blend == "learned":
            static, dynamic = static * (1 - b), dynamic * b
        colour += light * (static * samples.static_colour[ray, i] + dynamic * samples.dynamic_colour[ray, i])
        light *= (1 - static) * (1 - dynamic)
    return colour


@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_the_published_sums_are_met_as_samples_get_finer(blend: Literal["additive", "learned"]) -> None:
    """Per interval the papers let both fields take the same light twice; the difference goes with the intervals."""
    samples, lengths = random_samples(4)
    gaps, drifts = [], []
    for pieces in (1, 8, 64):
        fine = FieldSamples(*(value.repeat_interleave(pieces, dim=1) for value in vars(samples).values()))
        cut = lengths.repeat_interleave(pieces, dim=1) / pieces
        colour = composite(fine, cut, blend).colour
        published = torch.stack([published_colour(fine, cut, ray, blend) for ray in range(RAYS)])
        gaps.append(float((colour - published).abs().max()))
        drifts.append(colour)
    assert gaps[1] < gaps[0] / 4
    assert gaps[2] < gaps[1] / 4
    assert gaps[2] < 0.01
    if blend == "additive":  # the exact integral: cutting homogeneous intervals changes nothing
        torch.testing.assert_close(drifts[0], drifts[2])


@pytest.mark.parametrize("blend", ["additive", "learned"])
def test_weights_never_exceed_one_and_split_into_the_fields(blend: Literal["additive", "learned"]) -> None:
    samples, lengths = random_samples(1)
    result = composite(samples, lengths * 50, blend)
    assert (result.weights.sum(dim=-1) <= 1 + 1e-12).all()
    torch.testing.assert_close(result.dynamic_weights, result.weights * result.ratio)
    assert (result.ratio >= 0).all()
    assert (result.ratio <= 1).all()


def test_additive_weights_are_those_of_the_sum_of_densities() -> None:
    samples, lengths = random_samples(2)
    total = volume_weights(samples.static_density + samples.dynamic_density, lengths)
    torch.testing.assert_close(composite(samples, lengths, "additive").weights, total)


def test_a_homogeneous_medium_has_the_opacity_of_beer_and_lambert() -> None:
    weights = volume_weights(torch.full((1, 50), 0.7), torch.full((1, 50), 0.02))
    assert float(weights.sum()) == pytest.approx(1 - math.exp(-0.7), rel=1e-5)


def test_an_opaque_front_hides_what_is_behind() -> None:
    density = torch.tensor([[0.0, 1e6, 1e6]])
    torch.testing.assert_close(volume_weights(density, torch.ones(1, 3)), torch.tensor([[0.0, 1.0, 0.0]]))


def test_an_empty_dynamic_field_leaves_the_static_one_alone() -> None:
    samples, lengths = random_samples(3)
    empty = replace(samples, dynamic_density=torch.zeros(RAYS, SAMPLES))
    result = composite(empty, lengths, "additive")
    weights = volume_weights(samples.static_density, lengths)
    torch.testing.assert_close(result.colour, (weights[..., None] * samples.static_colour).sum(dim=1))
    assert (result.dynamic_weights == 0).all()


def test_gradients_are_finite_where_there_is_nothing() -> None:
    zero = torch.zeros(2, 4, requires_grad=True)
    colour = torch.rand(2, 4, 3)
    for blend in ("additive", "learned"):
        samples = FieldSamples(zero * 1, colour, zero * 1, colour, zero + 0.5, zero * 1)
        composite(samples, torch.ones(2, 4), blend).colour.sum().backward()  # type: ignore[arg-type]
        assert zero.grad is not None
        assert torch.isfinite(zero.grad).all()
