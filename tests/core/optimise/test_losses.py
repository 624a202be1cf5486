"""The losses: closed forms, finite differences, and what they may not do."""

import pytest
import torch
from torch import Tensor

from dpdy_core.optimise.depth_loss import affine_invariant_depth_loss, aligned_depth_loss, fit_scale_and_shift
from dpdy_core.optimise.reconstruction import colour_loss, motion_mask_loss
from dpdy_core.optimise.regularisers import distortion, interlevel, skewed_entropy

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
    frame = torch.arange(RAYS) % 2
    edges = uniform(RAYS, 6, seed=5).cumsum(dim=-1) / 6
    losses = [
        lambda x: colour_loss(x[:, :3], uniform(RAYS, 3), weight),
        lambda x: motion_mask_loss(x[:, 0] * 0.9 + 0.05, moving, weight),
        lambda x: aligned_depth_loss(x[:, 0], target, weight),
        lambda x: skewed_entropy(x * 0.9 + 0.05, uniform(RAYS, 5, seed=6)),
        lambda x: distortion(edges, x),
    ]
    for loss in losses:
        assert torch.autograd.gradcheck(loss, (uniform(RAYS, 5, seed=7).requires_grad_(),))
    # The affine loss detaches its fit: its gradient is that of the distance to the fit held fixed.
    x = uniform(RAYS, seed=8).requires_grad_()
    scale, shift = fit_scale_and_shift(target, x.detach(), weight, frame, 2)
    aligned = scale[frame] * target + shift[frame]
    affine_invariant_depth_loss(x, target, weight, frame, 2).backward()

    def fixed(y: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for k in range(2):
            w = weight * (frame == k)
            total = total + w.sum() * ((w * (y - aligned) ** 2).sum() / w.sum() + 1e-10).sqrt()
        return total / weight.sum()

    steps = 1e-6 * torch.eye(RAYS, dtype=torch.float64)
    numeric = torch.stack([(fixed(x.detach() + e) - fixed(x.detach() - e)) / 2e-6 for e in steps])
    assert x.grad is not None
    torch.testing.assert_close(x.grad, numeric, atol=1e-6, rtol=1e-5)


def test_the_fit_finds_scale_and_shift_of_each_frame() -> None:
    x, frame = uniform(40, seed=1), torch.arange(40) % 2
    y = torch.where(frame == 0, 2.0 * x + 0.3, 0.5 * x - 0.1)
    scale, shift = fit_scale_and_shift(x, y, torch.ones(40, dtype=torch.float64), frame, 2)
    torch.testing.assert_close(scale, torch.tensor([2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(shift, torch.tensor([0.3, -0.1], dtype=torch.float64))


def test_the_affine_loss_does_not_see_scale_and_shift_of_the_target() -> None:
    disparity, target = uniform(RAYS), uniform(RAYS, seed=1)
    weight, frame = torch.ones(RAYS, dtype=torch.float64), torch.zeros(RAYS, dtype=torch.long)
    plain = affine_invariant_depth_loss(disparity, target, weight, frame, 1)
    moved = affine_invariant_depth_loss(disparity, 7 * target + 3, weight, frame, 1)
    torch.testing.assert_close(plain, moved)


def descend(loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Disparities of one frame before and after minimising a depth loss alone, and the target."""
    target = uniform(200, seed=2)
    start = 0.4 * target + 1.0 + 0.05 * (uniform(200, seed=3) - 0.5)
    disparity = start.clone().requires_grad_()
    weight, frame = torch.ones(200, dtype=torch.float64), torch.zeros(200, dtype=torch.long)
    optimiser = torch.optim.SGD([disparity], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        if loss == "affine":
            value = affine_invariant_depth_loss(disparity, target, weight, frame, 1) * 10
        else:  # the median / mean-deviation form, for comparison

            def normalised(d: Tensor) -> Tensor:
                centred = d - d.median()
                return centred / centred.abs().mean()

            value = (normalised(disparity) - normalised(target)).square().mean() * 20
        value.backward()
        optimiser.step()
    return start, disparity.detach(), target


def test_minimising_the_affine_loss_keeps_the_scale_of_the_scene() -> None:
    start, end, target = descend("affine")
    assert float(end.mean() / start.mean()) == pytest.approx(1.0, abs=1e-6)
    slope = [float(((d - d.mean()) * (target - target.mean())).sum()) for d in (start, end)]
    assert slope[1] == pytest.approx(slope[0], rel=1e-6)  # the spread of disparity that the target explains
    residual = [float(torch.corrcoef(torch.stack([d, target]))[0, 1]) for d in (start, end)]
    assert residual[1] > residual[0]  # and it does learn the target's shape


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
