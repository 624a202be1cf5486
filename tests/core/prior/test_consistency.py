import numpy as np
import pytest
import torch

from dpdy_core.prior.consistency import consistency_scores, correlation, depth_consistency, edges


def grey(image):
    return image.expand(-1, 3, -1, -1)


def noise(count, seed=0):
    return torch.rand((count, 1, 24, 20), generator=torch.Generator().manual_seed(seed))


def test_edges_of_a_ramp_are_its_slope_inside():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    found = edges((0.3 * x + 0.4 * y)[None, None])
    assert found.shape == (1, 9, 8)
    torch.testing.assert_close(found[:, 2:-2, 2:-2], torch.full((1, 5, 4), 0.5))


def test_correlation_is_that_of_numpy_and_zero_for_a_constant():
    first, second = noise(3)[:, 0], noise(3, 1)[:, 0] + 0.5 * noise(3)[:, 0]
    expected = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    assert correlation(first, second).tolist() == pytest.approx(expected, abs=1e-5)
    assert correlation(first, torch.full_like(first, 0.3)).tolist() == [0, 0, 0]


def test_depth_that_is_the_colour_agrees_wholly_whatever_its_scale_and_sign():
    image = noise(6)
    score = depth_consistency(grey(image), 0.9 - 0.5 * image)
    assert score["own"] == pytest.approx(1)
    assert abs(score["other"]) < 0.1


def test_depth_of_other_images_is_told_apart():
    image = noise(6)
    score = depth_consistency(grey(image), image.roll(-1, 0))
    assert score["other"] == pytest.approx(1)
    assert abs(score["own"]) < 0.1


def test_flat_depth_belongs_to_nothing():
    assert depth_consistency(grey(noise(4)), torch.full((4, 1, 24, 20), 0.5)) == {"own": 0, "other": 0}


def test_scores_cover_samples_scenes_and_reconstructions(toy):
    image = noise(4)[..., :16, :16].repeat(1, 1, 2, 2)
    rgbd = torch.cat([grey(image), image], dim=1) * 2 - 1
    scores = consistency_scores(toy, rgbd, ["a red ball", "a box", "", "a room"], steps=2, batch_size=3)
    assert scores["scenes"]["own"] == pytest.approx(1, abs=1e-3)
    assert all(-1 <= value <= 1 for pair in scores.values() for value in pair.values())
    restored = toy.decoded(toy.encode(rgbd))
    assert scores["reconstructions"] == depth_consistency(*restored)
