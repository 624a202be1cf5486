import math

import pytest
import torch
from diffusers import DDIMScheduler

from dpdy_core.config import DistillationConfig
from dpdy_core.prior.guidance import (
    Denoised,
    add_noise,
    clean_gradient,
    distillation_gradient,
    guided,
    predicted_clean,
    predicted_noise,
    reparameterised_loss,
    rescaled,
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
    assert weight(alpha, "fantasia3d").tolist() == [0.375, 0.0]


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


ALPHA = torch.tensor([0.8, 0.3], dtype=torch.float64)


def denoised(kind="epsilon"):
    return Denoised(normal(2, 4, 3, 3, seed=4), normal(2, 4, 3, 3, seed=5), kind)


def test_x0_form_is_the_squared_distance_to_the_detached_prediction():
    """Against finite differences of 0.5 |z - z_hat|^2 / B with z_hat held fixed."""
    latent, clean_hat = normal(2, 4, 2, 2), normal(2, 4, 2, 2, seed=1)
    leaf = latent.clone().requires_grad_(True)
    loss = reparameterised_loss(leaf, clean_gradient(leaf, clean_hat))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5 * float((latent - clean_hat).square().sum()) / 2)
    for place in ((0, 0, 0, 0), (1, 3, 1, 0)):
        h = torch.zeros_like(latent)
        h[place] = 1e-6
        up, down = (0.5 * (latent + sign * h - clean_hat).square().sum() / 2 for sign in (1, -1))
        torch.testing.assert_close(leaf.grad[place], (up - down) / 2e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_x0_form_without_rescaling_is_sds_with_its_own_weight(kind):
    latent, noise = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1)
    settings = {"guidance": 3.0, "gradient_clip": 1e9}
    x0 = DistillationConfig(form="x0", rescale=0.0, **settings)
    plain = DistillationConfig(weighting="uniform", **settings)
    got = distillation_gradient(latent, noise, ALPHA, denoised(kind), x0, joint=False)
    sds = distillation_gradient(latent, noise, ALPHA, denoised(kind), plain, joint=False)
    torch.testing.assert_close(got, ((1 - ALPHA) / ALPHA).sqrt()[:, None, None, None] * sds)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("weighting", ["sds", "uniform", "fantasia3d"])
def test_epsilon_form_by_its_definition(kind, weighting):
    latent, noise, said = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1), denoised(kind)
    settings = DistillationConfig(guidance=2.0, weighting=weighting, gradient_clip=1e9)
    got = distillation_gradient(latent, noise, ALPHA, said, settings, joint=False)
    for i, a in enumerate(ALPHA):
        hat = 2 * said.conditional[i] - said.unconditional[i]
        if kind == "v_prediction":
            hat = (1 - a).sqrt() * (a.sqrt() * latent[i] + (1 - a).sqrt() * noise[i]) + a.sqrt() * hat
        w = {"sds": 1 - a, "uniform": 1.0, "fantasia3d": a.sqrt() * (1 - a)}[weighting]
        torch.testing.assert_close(got[i], w * (hat - noise[i]))


def test_rescaling_gives_back_the_unguided_contrast():
    strong, plain = 5 * normal(2, 4, 8, 8) + 1, normal(2, 4, 8, 8, seed=1)
    for i in range(2):
        whole = rescaled(strong, plain, 1.0)[i]
        assert float(whole.std()) == pytest.approx(float(plain[i].std()))
        torch.testing.assert_close(whole / whole.std(), strong[i] / strong[i].std())
        torch.testing.assert_close(rescaled(strong, plain, 0.5)[i], (whole + strong[i]) / 2)
    torch.testing.assert_close(rescaled(strong, plain, 0.0), strong)
    torch.testing.assert_close(rescaled(plain, plain, 0.7), plain)


def test_the_frames_of_a_clip_are_rescaled_alike():
    latent, noise, said = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1), denoised()
    settings = DistillationConfig(form="x0", guidance=5.0, rescale=1.0, gradient_clip=1e9)
    noisy = add_noise(latent, noise, ALPHA)
    hats = [predicted_clean(p, noisy, ALPHA, "epsilon") for p in (guided(*pair(said), 5.0), said.conditional)]
    joint = distillation_gradient(latent, noise, ALPHA, said, settings, joint=True)
    torch.testing.assert_close(latent - joint, hats[0] * hats[1].std() / hats[0].std())
    apart = distillation_gradient(latent, noise, ALPHA, said, settings, joint=False)
    assert (joint - apart).abs().max() > 1e-2


def pair(said):
    return said.unconditional, said.conditional


@pytest.mark.parametrize("form", ["epsilon", "x0"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_no_broken_prediction_leaves_the_gradient_unsafe(form, broken):
    said = denoised()
    said.conditional[1, 2, 0, 0] = broken
    settings = DistillationConfig(form=form, gradient_clip=0.5)
    gradient = distillation_gradient(normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1), ALPHA, said, settings, joint=False)
    assert torch.isfinite(gradient).all()
    assert (gradient.square().mean(dim=(1, 2, 3)).sqrt() <= 0.5 * (1 + 1e-9)).all()
    assert gradient[0].abs().max() > 0
