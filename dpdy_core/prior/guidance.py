"""Score distillation as plain functions on tensors.

Notation: z a clean latent, eps its noise, a = alpha_bar(t), z_t = sqrt(a) z + sqrt(1 - a) eps.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dpdy_core.config import DistillationConfig
from dpdy_core.section import Number

PredictionType = Literal["epsilon", "v_prediction"]
Weighting = Literal["sds", "uniform", "fantasia3d"]


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


def sample_timesteps(count: int, low: float, high: Number, total: int, generator: torch.Generator) -> Tensor:
    """(count,) timesteps, uniform over the shares [`low`, `high`] of the `total` steps, on the generator's device.

    `high` is a float or a 0-dim tensor there.
    """
    first = min(int(low * total), total - 1)
    steps = high * total - first
    steps = (
        steps.floor().clamp(1, total - first) if isinstance(steps, Tensor) else min(max(int(steps), 1), total - first)
    )
    share = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    return first + (share * steps).long()


def rescaled(clean_hat: Tensor, conditional: Tensor, share: float) -> Tensor:
    """share std(c) / std(z_hat) z_hat + (1 - share) z_hat, standard deviations over all but the first dimension.

    `clean_hat` is the guided prediction z_hat of the clean latent, `conditional` the unguided one c. Guidance raises
    the contrast, which distillation would copy into oversaturated scenes (Lin et al. 2023, section 3.4; on z_hat as
    in MVDream and 4D-fy, multiview_diffusion_guidance.py, `recon_std_rescale`, there 0.5).
    """
    axes = tuple(range(1, clean_hat.dim()))
    factor = (conditional.std(axes, keepdim=True) + 1e-8) / (clean_hat.std(axes, keepdim=True) + 1e-8)
    return torch.lerp(clean_hat, factor * clean_hat, share)


def weight(alpha_bar: Tensor, kind: Weighting) -> Tensor:
    """w(t): `sds` is 1 - a (DreamFusion), `uniform` 1, `fantasia3d` sqrt(a) (1 - a) (all in threestudio)."""
    if kind == "uniform":
        return torch.ones_like(alpha_bar)
    return 1 - alpha_bar if kind == "sds" else alpha_bar.sqrt() * (1 - alpha_bar)


def sds_gradient(noise_hat: Tensor, noise: Tensor, w: Tensor, clip: float | None = None) -> Tensor:
    """w(t) (eps_hat - eps), the SDS gradient on the latent (DreamFusion eq. 3), made safe by `bounded`; `w` (B,)."""
    return bounded(per_image(w) * (noise_hat - noise), clip)


def clean_gradient(latent: Tensor, clean_hat: Tensor, clip: float | None = None) -> Tensor:
    """z - z_hat, the gradient of 0.5 |z - stopgrad(z_hat)|^2 (MVDream, section 3.2), made safe by `bounded`.

    It is sqrt((1 - a) / a) (eps_hat - eps): SDS with that as w(t).
    """
    return bounded(latent - clean_hat, clip)


def bounded(gradient: Tensor, clip: float | None) -> Tensor:
    """`gradient` (B, C, h, w), detached, with 0 for NaN and infinities.

    `clip` limits the root mean square of each image's gradient, which keeps its direction.
    """
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0).detach()
    if clip is None:
        return gradient
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return gradient * (clip / size.clamp_min(clip))


@dataclass(frozen=True)
class Denoised:
    """What a network said about B noisy latents: its raw predictions without and with the prompt, (B, C, h, w)."""

    unconditional: Tensor
    conditional: Tensor
    prediction_type: PredictionType


def distillation_gradient(
    latents: Tensor, noise: Tensor, alpha_bar: Tensor, denoised: Denoised, config: DistillationConfig, joint: bool
) -> Tensor:
    """The gradient on `latents` z (B, C, h, w), noised by `noise` at `alpha_bar` (B,), that `config` asks for.

    form=epsilon: w(t) (eps_hat - eps); form=x0: z - z_hat with z_hat `rescaled`, over the whole batch if `joint` (the
    frames of one clip). Both predictions are guided.
    """
    latents, kind = latents.detach(), denoised.prediction_type
    noisy = add_noise(latents, noise, alpha_bar)
    prediction = guided(denoised.unconditional, denoised.conditional, config.guidance)
    if config.form == "epsilon":
        noise_hat = predicted_noise(prediction, noisy, alpha_bar, kind)
        return sds_gradient(noise_hat, noise, weight(alpha_bar, config.weighting), config.gradient_clip)
    clean_hat = predicted_clean(prediction, noisy, alpha_bar, kind)
    conditional = predicted_clean(denoised.conditional, noisy, alpha_bar, kind)
    if joint:
        clean_hat = rescaled(clean_hat[None], conditional[None], config.rescale)[0]
    else:
        clean_hat = rescaled(clean_hat, conditional, config.rescale)
    return clean_gradient(latents, clean_hat, config.gradient_clip)


def reparameterised_loss(latent: Tensor, gradient: Tensor) -> Tensor:
    """0.5 sum((z - stopgrad(z - g))^2) / B: its gradient on z (B, C, h, w) is g / B; its value says nothing."""
    target = (latent - gradient).detach()
    return 0.5 * (latent - target).square().sum() / latent.shape[0]
