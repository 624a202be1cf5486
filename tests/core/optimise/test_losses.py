"""The losses: closed forms, finite differences, and what they may not do."""

import pytest
import torch
from torch import Tensor

from dpdy_core.optimise.depth_loss import affine_invariant_depth_loss, aligned_depth_loss
from dpdy_core.optimise.reconstruction import colour_loss, motion_mask_loss
from dpdy_core.optimise.regularisers import distortion, interlevel, shadow_sparsity, skewed_entropy

RAYS = 12


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_colour_loss_ignores_rays_without_weight() -> None:
    rendered, observed = uniform(RAYS, 3), uniform(RAYS, 3, seed=1)
    weight = torch.ones(RAYS, dtype=torch.float64)
    weight[3:] = 0
    expected = (rendered[:3] - observed[:3]).square().mean()
    torch.testing.assert_close(colour_loss(rendered, observed, weight), expected)
    assert float(colour_loss(rendered, observed, weight * 0)) == 0


def test_motion_mask_loss_is_least_at_the_mask() -> None:
    moving = torch.tensor([True, False])
    weight = torch.ones(2)
    right, wrong = (motion_mask_loss(torch.tensor(v), moving, weight) for v in ([0.99, 0.01], [0.01, 0.99]))
    assert float(right) < 0.02
    assert float(wrong) > 4


def test_gradients_of_the_losses_match_finite_differences() -> None:
    weight = uniform(RAYS, seed=3)
    target = uniform(RAYS, seed=4)
    moving = target > 0.5
    edges = uniform(RAYS, 6, seed=5).cumsum(dim=-1) / 6
    losses = [
        lambda x: colour_loss(x[:, :3], uniform(RAYS, 3), weight),
        lambda x: motion_mask_loss(x[:, 0] * 0.9 + 0.05, moving, weight),
        lambda x: aligned_depth_loss(x[:, 0], target, weight),
        lambda x: affine_invariant_depth_loss(x[:, 0], target, weight),
        lambda x: skewed_entropy(x * 0.9 + 0.05, uniform(RAYS, 5, seed=6)),
        lambda x: distortion(edges, x),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, (uniform(RAYS, 5, seed=7).requires_grad_(),))


def test_the_affine_loss_does_not_see_scale_and_shift() -> None:
    disparity, target, weight = uniform(RAYS), uniform(RAYS, seed=1), uniform(RAYS, seed=2)
    plain = affine_invariant_depth_loss(disparity, target, weight)
    for moved in ((disparity, 7 * target + 3), (0.2 * disparity - 5, target)):
        torch.testing.assert_close(affine_invariant_depth_loss(*moved, weight), plain)


def test_the_affine_loss_is_the_distance_of_normalised_disparities() -> None:
    """Against the definition in numpy, with invalid pixels; 1 of a flat target."""
    disparity, target, valid = (uniform(90, seed=s).numpy() for s in (1, 2, 3))
    valid = (valid > 0.3).astype(float)
    a, b = (x[valid > 0] for x in (disparity, target))
    want = ((((a - a.mean()) / a.std()) - ((b - b.mean()) / b.std())) ** 2).mean() / 2
    rays = [torch.from_numpy(x) for x in (disparity, target, valid)]
    assert float(affine_invariant_depth_loss(*rays)) == pytest.approx(want, rel=1e-9)
    assert float(affine_invariant_depth_loss(rays[0], torch.full_like(rays[1], 0.7), rays[2])) == pytest.approx(1)


@pytest.mark.parametrize("agreement", [0.0, 0.4])
def test_minimising_the_affine_loss_keeps_the_scale_of_the_scene(agreement: float) -> None:
    """Also from a render that knows nothing yet of the target, where a fit to it would be flat."""
    target = uniform(400, seed=2)
    start = agreement * target + 1.0 + 0.5 * (uniform(400, seed=3) - 0.5)
    disparity = start.clone().requires_grad_()
    weight = torch.ones(400, dtype=torch.float64)
    optimiser = torch.optim.SGD([disparity], lr=0.1)
    for _ in range(1500):
        optimiser.zero_grad()
        affine_invariant_depth_loss(disparity, target, weight).backward()
        optimiser.step()
    end = disparity.detach()
    assert float(end.mean() / start.mean()) == pytest.approx(1.0, abs=1e-6)
    assert float(end.std() / start.std()) == pytest.approx(1.0, abs=0.02)
    before, after = (float(torch.corrcoef(torch.stack([d, target]))[0, 1]) for d in (start, end))
    assert before < 0.7
    assert after > 0.99


def test_distortion_matches_the_double_sum() -> None:
    edges, weights = uniform(3, 7, seed=1).cumsum(dim=-1), uniform(3, 6, seed=2)
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    total = 0.0
    for r in range(3):
        for i in range(6):
            total += float(weights[r, i] ** 2 * (edges[r, i + 1] - edges[r, i])) / 3
            for j in range(6):
                total += float(weights[r, i] * weights[r, j] * (middle[r, i] - middle[r, j]).abs())
    assert float(distortion(edges, weights)) == pytest.approx(total / 3)


def test_a_proposal_that_covers_the_weights_costs_nothing() -> None:
    edges = torch.linspace(0, 1, 9).expand(2, -1)
    weights = uniform(2, 8, seed=1).float() / 8
    assert float(interlevel(edges, weights, edges, weights)) == pytest.approx(0, abs=1e-9)
    coarse_edges = edges[:, ::4]
    coarse = weights.view(2, 2, 4).sum(-1)
    assert float(interlevel(edges, weights, coarse_edges, coarse)) == pytest.approx(0, abs=1e-9)


def test_a_proposal_that_misses_weight_is_trained_and_the_fields_are_not() -> None:
    edges = torch.linspace(0, 1, 9).expand(2, -1)
    weights = torch.rand(2, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    proposal = torch.full((2, 8), 1e-3, requires_grad=True)
    loss = interlevel(edges, weights, edges, proposal)
    loss.backward()
    assert float(loss.detach()) > 0.1
    assert weights.grad is None
    assert proposal.grad is not None
    assert (proposal.grad <= 0).all()
    assert (proposal.grad < 0).any()


def test_entropy_is_low_when_decided_and_the_skew_prefers_static() -> None:
    weights = torch.ones(1, 1)
    values = {r: float(skewed_entropy(torch.full((1, 1), r), weights)) for r in (0.0, 0.3, 0.5, 0.85, 1.0)}
    assert values[0.0] < 1e-3
    assert values[1.0] < 1e-3
    assert values[0.85] > values[0.5] > values[0.3]  # the ridge lies above one half: below it the way is to static


def test_shadows_cost_their_square_wherever_they_are() -> None:
    shadow = torch.tensor([[0.0, 0.5], [0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    assert float(shadow_sparsity(shadow.detach())) == pytest.approx((0.25 + 0.04 + 0.01) / 4)
    assert torch.autograd.gradcheck(shadow_sparsity, (shadow,))
