"""Score distillation of rendered RGB-D views by the run's finetuned prior."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dpdy_core.config import SdsConfig
from dpdy_core.prior.finetuned import load_finetuned
from dpdy_core.prior.guidance import Denoised, distillation_gradient, reparameterised_loss, sample_timesteps
from dpdy_core.prior.rgbd import pack
from dpdy_core.section import Number


class RgbdGuidance:
    """The frozen prior and the run's prompt. On CUDA the UNet works in bfloat16, the VAE in float32."""

    def __init__(self, prior_folder: Path, sds: SdsConfig, device: torch.device | str) -> None:
        """Raises JobFailed if `prior_folder` holds no finished prior or the base model's weights are missing."""
        self.model, record = load_finetuned(prior_folder, device)
        self.sds = sds
        self.base = str(record["base"])
        self.resolution = int(record["resolution"])
        with torch.no_grad():
            self.empty, self.text = self.model.encode_prompt(["", record["prompt"]]).chunk(2)
        if self.model.device.type == "cuda":
            self.model.unet.to(torch.bfloat16)

    def loss(
        self, rgb: Tensor, depth: Tensor, act: Tensor | None, progress: Number, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar whose gradient with respect to `rgb` and `depth` is the SDS gradient, and 0-dim tensors to log.

        `rgb` (B, 3, H, W) in [0, 1], `depth` (B, 1, H, W) planar z; `act` (B, 1, H, W) in [0, 1] scales the gradient
        of each pixel, exactly 0 where it is 0. `progress` in [0, 1] of training sets the upper end of the timesteps.
        The loss' value means nothing.
        """
        if self.sds.rgb_only:
            depth = depth.detach()
        latents = self.model.encode(packed(rgb, depth, act, self.resolution))
        total = len(self.model.alphas_cumprod)
        t_max = self.sds.t_max.at(progress)
        timesteps = sample_timesteps(len(rgb), self.sds.t_min, t_max, total, generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
        denoised = self.denoised(self.model.noisy(latents.detach(), noise, timesteps), timesteps)
        alpha_bar = self.model.alphas_cumprod[timesteps]
        gradient = distillation_gradient(latents, noise, alpha_bar, denoised, self.sds, joint=False)
        numbers = {"sds_gradient": gradient.square().mean().sqrt(), "sds_timestep": timesteps.float().mean()}
        return reparameterised_loss(latents, gradient), numbers

    @torch.no_grad()
    def denoised(self, noisy: Tensor, timesteps: Tensor) -> Denoised:
        """What the UNet says about `noisy` (B, C, h, w) without and with the run's prompt."""
        text, empty = (states.expand(len(noisy), -1, -1) for states in (self.text, self.empty))
        device = noisy.device.type
        # a captured graph must not read autocast's cache of weights, which dies with the capture
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda", cache_enabled=False):
            pair = self.model.predict_pair(noisy, timesteps, text, empty, self.sds.guidance)
        return Denoised(*pair, self.model.prediction_type)


def packed(rgb: Tensor, depth: Tensor, act: Tensor | None, side: int) -> Tensor:
    """(B, 4, `side`, `side`) as the prior sees it, with the gradient scaled by `act` (B, 1, H, W)."""
    if act is not None:
        rgb = act * rgb + (1 - act) * rgb.detach()
        depth = act * depth + (1 - act) * depth.detach()
    rgb, depth = (
        functional.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
        for x in (rgb, depth)
    )
    return pack(rgb, depth)
