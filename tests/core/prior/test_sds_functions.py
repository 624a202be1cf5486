import math

import pytest
import torch
from diffusers import DDIMScheduler

from dpdy_core.prior.guidance import (
    add_noise,
    guided,
    predicted_clean,
    predicted_noise,
    reparameterised_loss,
    sample_timesteps,
    sds_gradient,
    training_target,
    weight,
)
from dpdy_core.prior.tiny import zero_snr_schedule


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_target_gives_back_noise_and_clean_latent(kind):
    clean, noise = normal(3, 4, 5, 5), normal(3, 4, 5, 5, seed=1)
    alpha = torch.tensor([0.9, 0.4, 0.01], dtype=torch.float64)
    noisy = add_noise(clean, noise, alpha)
    target = training_target(clean, noise, alpha, kind)
    torch.testing.assert_close(predicted_noise(target, noisy, alpha, kind), noise)
    torch.testing.assert_close(predicted_clean(target, noisy, alpha, kind), clean)


def test_velocity_is_the_derivative_of_the_noisy_latent_by_angle():
    clean, noise, angle, h = normal(1, 4, 2, 2), normal(1, 4, 2, 2, seed=1), 0.7, 1e-6

    def at(phi):
        return add_noise(clean, noise, torch.tensor([math.cos(phi) ** 2], dtype=torch.float64))

    alpha = torch.tensor([math.cos(angle) ** 2], dtype=torch.float64)
    slope = (at(angle + h) - at(angle - h)) / (2 * h)
    torch.testing.assert_close(training_target(clean, noise, alpha, "v_prediction"), slope, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("schedule", [zero_snr_schedule(), DDIMScheduler(beta_schedule="scaled_linear")])
def test_noise_and_velocity_are_those_of_the_scheduler(schedule):
    clean, noise, t = normal(4, 4, 3, 3), normal(4, 4, 3, 3, seed=1), torch.tensor([0, 20, 500, 999])
    alpha = schedule.alphas_cumprod[t].double()
    torch.testing.assert_close(add_noise(clean, noise, alpha), schedule.add_noise(clean, noise, t))
    velocity = schedule.get_velocity(clean, noise, t)
    torch.testing.assert_close(training_target(clean, noise, alpha, "v_prediction"), velocity)


def test_guidance_one_is_conditional_and_zero_unconditional():
    u, c = normal(1, 4, 2, 2), normal(1, 4, 2, 2, seed=1)
    torch.testing.assert_close(guided(u, c, 0.0), u)
    torch.testing.assert_close(guided(u, c, 1.0), c)
    torch.testing.assert_close(guided(u, c, 7.5), 7.5 * c - 6.5 * u)


def test_timesteps_stay_in_their_range_and_reach_its_ends():
    drawn = sample_timesteps(20_000, 0.02, 0.05, 1000, torch.Generator().manual_seed(0))
    assert (int(drawn.min()), int(drawn.max())) == (20, 49)
    assert sample_timesteps(5, 1.0, 1.0, 1000, torch.Generator()).eq(999).all()


def test_gradient_on_the_latent_is_weighted_noise_difference():
    latent = normal(2, 4, 3, 3).requires_grad_(True)
    noise, noise_hat = normal(2, 4, 3, 3, seed=1), normal(2, 4, 3, 3, seed=2)
    alpha = torch.tensor([0.8, 0.3], dtype=torch.float64)
    reparameterised_loss(latent, sds_gradient(noise_hat, noise, weight(alpha, "sds"))).backward()
    expected = torch.stack([(1 - alpha[i]) * (noise_hat[i] - noise[i]) / 2 for i in range(2)])
    torch.testing.assert_close(latent.grad, expected)


def test_gradient_reaches_what_the_latent_was_made_of():
    """Against finite differences of <g, z(x)> / B, whose gradient the reparameterised loss must have."""
    x, matrix, g = normal(6), normal(8, 6, seed=1), normal(1, 4, 1, 2, seed=2)

    def latent(values):
        return torch.tanh(matrix @ values).reshape(1, 4, 1, 2)

    leaf = x.clone().requires_grad_(True)
    reparameterised_loss(latent(leaf), g).backward()
    for i in range(6):
        h = torch.zeros(6, dtype=torch.float64)
        h[i] = 1e-6
        slope = ((latent(x + h) - latent(x - h)) * g).sum() / 2e-6
        torch.testing.assert_close(leaf.grad[i], slope, atol=1e-7, rtol=1e-6)


def test_weights():
    alpha = torch.tensor([0.25, 1.0])
    assert weight(alpha, "sds").tolist() == [0.75, 0.0]
    assert weight(alpha, "uniform").tolist() == [1.0, 1.0]


def test_broken_predictions_give_no_gradient():
    noise = torch.zeros(1, 4, 2, 2)
    broken = torch.ones(1, 4, 2, 2)
    broken[0, 0, 0, 0], broken[0, 1, 0, 0], broken[0, 2, 0, 0] = float("nan"), float("inf"), -float("inf")
    gradient = sds_gradient(broken, noise, torch.ones(1))
    assert gradient[0, :3, 0, 0].eq(0).all()
    assert gradient.sum() == 13


def test_clipping_keeps_direction_and_small_gradients():
    noise, w = torch.zeros(2, 4, 2, 2), torch.ones(2)
    hat = torch.cat([torch.full((1, 4, 2, 2), 10.0), torch.full((1, 4, 2, 2), 0.1)])
    clipped = sds_gradient(hat, noise, w, clip=1.0)
    torch.testing.assert_close(clipped[0], torch.ones(4, 2, 2))
    torch.testing.assert_close(clipped[1], hat[1])
