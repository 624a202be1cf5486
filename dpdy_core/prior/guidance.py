"""Score distillation as plain functions on tensors.

Notation: z a clean latent, eps its noise, a = alpha_bar(t), z_t = sqrt(a) z + sqrt(1 - a) eps.
"""

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]
Weighting = Literal["sds", "uniform"]


def per_image(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values[:, None, None, None]


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(a) z + sqrt(1 - a) eps; `alpha_bar` (B,)."""
    a = per_image(alpha_bar)
    return a.sqrt() * clean + (1 - a).sqrt() * noise


def training_target(clean: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: PredictionType) -> Tensor:
    """What the network is trained to predict: eps, or v = sqrt(a) eps - sqrt(1 - a) z (Salimans & Ho 2022, app. D)."""
    if prediction_type == "epsilon":
        return noise
    a = per_image(alpha_bar)
    return a.sqrt() * noise - (1 - a).sqrt() * clean


def predicted_noise(prediction: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction_type: PredictionType) -> Tensor:
    """eps_hat; from v it is sqrt(1 - a) z_t + sqrt(a) v."""
    if prediction_type == "epsilon":
        return prediction
    a = per_image(alpha_bar)
    return (1 - a).sqrt() * noisy + a.sqrt() * prediction


def predicted_clean(prediction: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction_type: PredictionType) -> Tensor:
    """z_hat; from v it is sqrt(a) z_t - sqrt(1 - a) v, from eps (z_t - sqrt(1 - a) eps) / sqrt(a)."""
    a = per_image(alpha_bar)
    if prediction_type == "v_prediction":
        return a.sqrt() * noisy - (1 - a).sqrt() * prediction
    return (noisy - (1 - a).sqrt() * prediction) / a.sqrt().clamp_min(1e-6)


def guided(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance in the diffusers convention: u + s (c - u); s = 1 is the conditional prediction."""
    return unconditional + scale * (conditional - unconditional)


def sample_timesteps(count: int, low: float, high: float, total: int, generator: torch.Generator) -> Tensor:
    """(count,) timesteps, uniform over the shares [`low`, `high`] of the `total` steps, on the generator's device."""
    first = min(int(low * total), total - 1)
    last = min(max(int(high * total), first + 1), total)
    return torch.randint(first, last, (count,), generator=generator, device=generator.device)


def weight(alpha_bar: Tensor, kind: Weighting) -> Tensor:
    """w(t): `sds` is 1 - a (DreamFusion, threestudio's default), `uniform` is 1."""
    return 1 - alpha_bar if kind == "sds" else torch.ones_like(alpha_bar)


def sds_gradient(noise_hat: Tensor, noise: Tensor, w: Tensor, clip: float | None = None) -> Tensor:
    """w(t) (eps_hat - eps), the SDS gradient on the latent (DreamFusion eq. 3); NaN and infinities become 0.

    `w` is (B,). `clip` limits the root mean square of each image's gradient, which keeps its direction.
    """
    gradient = torch.nan_to_num(per_image(w) * (noise_hat - noise), nan=0.0, posinf=0.0, neginf=0.0).detach()
    if clip is None:
        return gradient
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return gradient * (clip / size.clamp_min(clip))


def reparameterised_loss(latent: Tensor, gradient: Tensor) -> Tensor:
    """0.5 sum((z - stopgrad(z - g))^2) / B: its gradient on z (B, C, h, w) is g / B; its value says nothing."""
    target = (latent - gradient).detach()
    return 0.5 * (latent - target).square().sum() / latent.shape[0]
