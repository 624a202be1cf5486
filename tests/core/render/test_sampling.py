"""Sampling along rays: ranges, order, and the inverse CDF."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.render.sampling import depth_at, importance, stratified


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_depth_is_linear_in_disparity() -> None:
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    depth = depth_at(s, 0.5, 20.0)
    assert (float(depth[0]), float(depth[-1])) == (0.5, 20.0)
    steps = (1 / depth).diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 1000))
def test_stratified_edges_are_sorted_and_span_the_ray(count: int, seed: int) -> None:
    edges = stratified(3, count, torch.device("cpu"), seeded(seed))
    assert (edges.diff() >= 0).all()
    assert (edges[:, 0] == 0).all()
    assert (edges[:, -1] == 1).all()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 40), st.integers(0, 1000))
def test_importance_edges_are_sorted_and_inside(weights: list[float], count: int, seed: int) -> None:
    edges = stratified(1, len(weights), torch.device("cpu"), seeded(seed))
    for generator in (None, seeded(seed)):
        drawn = importance(edges, torch.tensor([weights]), count, generator)
        assert drawn.shape == (1, count + 1)
        assert (drawn.diff() >= 0).all()
        assert (drawn >= 0).all()
        assert (drawn <= 1).all()


def test_importance_follows_the_weights() -> None:
    edges = torch.linspace(0, 1, 6).expand(2000, -1)
    weights = torch.tensor([0.1, 0.0, 0.6, 0.0, 0.3]).expand(2000, -1)
    drawn = importance(edges, weights, 15, seeded(), padding=0.0)
    share = torch.histc(drawn, 5, 0, 1) / drawn.numel()
    torch.testing.assert_close(share, weights[0], atol=0.02, rtol=0)


def test_importance_without_generator_takes_the_middles_of_equal_shares() -> None:
    edges = torch.tensor([[0.0, 0.5, 1.0]])
    drawn = importance(edges, torch.tensor([[1.0, 1.0]]), 3, None)
    torch.testing.assert_close(drawn, torch.tensor([[0.125, 0.375, 0.625, 0.875]]))


def test_padding_lets_no_interval_starve() -> None:
    edges = torch.linspace(0, 1, 5).expand(4000, -1)
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(4000, -1)
    drawn = importance(edges, weights, 7, seeded())
    assert (torch.histc(drawn, 4, 0, 1) > 0).all()


def test_no_gradient_reaches_the_proposal_through_the_samples() -> None:
    weights = torch.rand(2, 4, generator=seeded()).requires_grad_()
    assert not importance(stratified(2, 4, torch.device("cpu"), None), weights, 4, seeded()).requires_grad
