"""Training of the RGB-D VAE from scratch."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from dpdy_core.prior.phase import Average, Phase, checked, learning_rate
from dpdy_core.prior.scene_buffer import SceneBuffer
from dpdy_core.prior.training_step import TrainingStep

SCALES = 4  # of the pyramid on which reconstructions are compared
GRADIENT_WEIGHT = 0.5
KL_WEIGHT = 1e-4
HALF_EVERY = 4  # every n-th batch at half the resolution, at which small presets use the model
CROPPED = 0.85  # share of the phase in which batches are crops of half the side: as many pixels give more steps

Restore = Callable[[AutoencoderKL, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def train_autoencoder(
    vae: AutoencoderKL,
    averaged: AutoencoderKL,
    buffer: SceneBuffer,
    phase: Phase,
    generator: torch.Generator,
    batch_size: int,
    peak_rate: float,
    restore: Restore,
    graphs: bool = True,
) -> float:
    """Train `vae` and its moving average `averaged` until the phase ends; returns the last loss.

    `batch_size` whole images, or three times as many crops, a step. `restore` is `restored`, or that compiled for
    images of half the side.
    """
    take = TrainingStep(vae.parameters(), 1e-4, generator, graphs)
    average = Average([vae], [averaged], decay=0.998)
    vae.train().requires_grad_(True)

    def of_crops(rgbd: Tensor) -> Tensor:
        return autoencoder_loss(vae, rgbd, generator, restore)

    def of_images(rgbd: Tensor) -> Tensor:
        return autoencoder_loss(vae, rgbd, generator, restored)

    last = float("nan")
    for step in phase:
        small = phase.progress < CROPPED
        rgbd = buffer.packed(buffer.draw(3 * batch_size if small else batch_size, generator))
        if small:
            rgbd = torch.nn.functional.avg_pool2d(rgbd, 2) if step % HALF_EVERY == 0 else cropped(rgbd, step)
        rgbd = varied(rgbd, generator)
        loss = take(of_crops if small else of_images, learning_rate(peak_rate, phase.progress), rgbd)
        average.update(step)
        if phase.ticking or step == 1:
            last = checked(loss, "the autoencoder")
            phase.report(len(rgbd), loss=last)
            buffer.renew()
    return last


def cropped(images: Tensor, step: int) -> Tensor:
    """Half the side of `images` (B, C, S, S), at a place that changes with `step`."""
    half = images.shape[-1] // 2
    top, left = 37 * step % (half + 1), 101 * step % (half + 1)
    return images[..., top : top + half, left : left + half]


def autoencoder_loss(vae: AutoencoderKL, rgbd: Tensor, generator: torch.Generator, restore: Restore) -> Tensor:
    """Reconstruction and KL loss of `rgbd` (B, 4, H, W); bfloat16 on CUDA."""
    reduction = 2 ** (len(vae.config.block_out_channels) - 1)
    height, width = (side // reduction for side in rgbd.shape[-2:])
    shape = (len(rgbd), vae.config.latent_channels, height, width)
    noise = torch.randn(shape, generator=generator, device=rgbd.device)
    with torch.autocast(rgbd.device.type, torch.bfloat16, rgbd.device.type == "cuda", cache_enabled=False):
        image, mean, logvar = restore(vae, rgbd.contiguous(memory_format=torch.channels_last), noise)
    return reconstruction_loss(image.float(), rgbd) + KL_WEIGHT * kl_divergence(mean, logvar)


def restored(vae: AutoencoderKL, rgbd: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`rgbd` (B, 4, H, W) through the VAE with `noise` (B, C, h, w) in its latents; their mean and log variance.

    What `vae(rgbd, sample_posterior=True)` does, without objects that torch.compile stumbles over.
    """
    mean, logvar = vae.quant_conv(vae.encoder(rgbd)).chunk(2, dim=1)
    logvar = logvar.clamp(-30, 20)
    latents = mean + torch.exp(0.5 * logvar) * noise
    return vae.decoder(vae.post_quant_conv(latents)), mean, logvar


def varied(rgbd: Tensor, generator: torch.Generator) -> Tensor:
    """`rgbd` (B, 4, H, W) with colours and depth that the scenes alone never show, mirrored at random.

    Of the depth channels an eighth each becomes constant, rescaled, or that of another image: trained only on depth
    that fills its range, a VAE ruins the colour of a frame whose depth is flat, which every early render's is.
    """

    def uniform(low: float, high: float) -> Tensor:
        values = torch.rand((len(rgbd), 1, 1, 1), generator=generator, device=rgbd.device)
        return low + (high - low) * values

    contrast, brightness = uniform(0.5, 1.2), uniform(-0.25, 0.25)
    jittered = (rgbd[:, :3] * contrast + brightness).clamp(-1, 1)
    rgb = torch.where(uniform(0, 1) < 0.5, jittered, rgbd[:, :3])
    depth, kind, level = rgbd[:, 3:], uniform(0, 1), uniform(-1, 1)
    level = torch.where(uniform(0, 1) < 0.5, torch.zeros_like(level), level)  # `rgbd.pack` maps constant depth to 0
    rescaled = (depth * uniform(0.1, 0.9) + 0.5 * level).clamp(-1, 1)
    changed = torch.where(kind < 0.125, level.expand_as(depth), torch.where(kind < 0.25, rescaled, depth.roll(1, 0)))
    packed = torch.cat([rgb, torch.where(kind < 0.375, changed, depth)], dim=1)
    return torch.where(uniform(0, 1) < 0.5, packed.flip(-1), packed)


def reconstruction_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of (B, 4, H, W) on a pyramid of SCALES levels (broad errors of colour count on all of
    them), that of the differences between neighbours (sharp edges), and each image's root mean square error of colour
    (what PSNR sees)."""
    error = restored - target
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    squared = error[:, :3].square().mean(dim=(1, 2, 3))
    loss = GRADIENT_WEIGHT * (across + down) + (squared + 1e-6).sqrt().mean()
    for level in range(SCALES):
        loss = loss + error.abs().mean()
        if level + 1 < SCALES:
            error = torch.nn.functional.avg_pool2d(error, 2)
    return loss


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL of N(mean, exp(logvar)) from N(0, 1), mean over all elements."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


@torch.no_grad()
def set_scaling_factor(vae: AutoencoderKL, rgbd: Tensor) -> float:
    """Make scaled latents of `rgbd` (B, 4, H, W) have unit standard deviation; returns the factor."""
    factor = 1 / float(vae.encode(rgbd).latent_dist.mode().std())
    vae.register_to_config(scaling_factor=factor)
    return factor


@torch.no_grad()
def autoencoder_psnr(vae: AutoencoderKL, rgbd: Tensor) -> dict[str, float]:
    """PSNR (of values in [0, 1]) of `rgbd` (B, 4, H, W) through the VAE, and of its colour with constant depth."""

    def error(packed: Tensor) -> Tensor:
        return (vae.decode(vae.encode(packed).latent_dist.mode()).sample.clamp(-1, 1) - packed).square().div(4)

    whole, flat = error(rgbd), error(torch.cat([rgbd[:, :3], torch.zeros_like(rgbd[:, 3:])], dim=1))
    parts = {"psnr_rgb": whole[:, :3], "psnr_depth": whole[:, 3:], "psnr_rgb_flat_depth": flat[:, :3]}
    return {name: round(float(-10 * part.mean(dim=(1, 2, 3)).log10().mean()), 2) for name, part in parts.items()}
