"""Score distillation of rendered RGB-D views by the run's finetuned prior."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dpdy_core.config import SdsConfig
from dpdy_core.prior.finetuned import load_finetuned
from dpdy_core.prior.guidance import predicted_noise, reparameterised_loss, sample_timesteps, sds_gradient, weight
from dpdy_core.prior.rgbd import pack


class RgbdGuidance:
    """The frozen prior and the run's prompt. On CUDA the UNet works in bfloat16, the VAE in float32."""

    def __init__(self, prior_folder: Path, sds: SdsConfig, device: torch.device | str) -> None:
        """Raises JobFailed if `prior_folder` holds no finished prior or the base model's weights are missing."""
        self.model, record = load_finetuned(prior_folder, device)
        self.sds = sds
        self.resolution = int(record["resolution"])
        with torch.no_grad():
            self._empty, self._text = self.model.encode_prompt(["", record["prompt"]]).chunk(2)
        if self.model.device.type == "cuda":
            self.model.unet.to(torch.bfloat16)

    def loss(
        self, rgb: Tensor, depth: Tensor, act: Tensor | None, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar whose gradient with respect to `rgb` and `depth` is the SDS gradient, and 0-dim tensors to log.

        `rgb` (B, 3, H, W) in [0, 1], `depth` (B, 1, H, W) planar z; `act` (B, 1, H, W) in [0, 1] scales the gradient
        of each pixel, exactly 0 where it is 0. `progress` in [0, 1] of training sets the upper end of the timesteps.
        The loss' value means nothing.
        """
        latents = self.model.encode(self.packed(rgb, depth, act))
        total = len(self.model.alphas_cumprod)
        t_max = self.sds.t_max.at(progress)
        timesteps = sample_timesteps(len(rgb), self.sds.t_min, t_max, total, generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
        alpha_bar = self.model.alphas_cumprod[timesteps]
        noise_hat = self.guided_noise(self.model.noisy(latents.detach(), noise, timesteps), timesteps, alpha_bar)
        gradient = sds_gradient(noise_hat, noise, weight(alpha_bar, "sds"), self.sds.gradient_clip)
        numbers = {"sds_gradient": gradient.square().mean().sqrt(), "sds_timestep": timesteps.float().mean()}
        return reparameterised_loss(latents, gradient), numbers

    def packed(self, rgb: Tensor, depth: Tensor, act: Tensor | None) -> Tensor:
        """(B, 4, S, S) at the prior's resolution, with the gradient held back where `act` and `rgb_only` say so."""
        if act is not None:
            rgb = act * rgb + (1 - act) * rgb.detach()
            depth = act * depth + (1 - act) * depth.detach()
        if self.sds.rgb_only:
            depth = depth.detach()
        size = (self.resolution, self.resolution)
        rgb, depth = (
            functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True) for x in (rgb, depth)
        )
        return pack(rgb, depth)

    @torch.no_grad()
    def guided_noise(self, noisy: Tensor, timesteps: Tensor, alpha_bar: Tensor) -> Tensor:
        """eps_hat (B, C, h, w) under classifier-free guidance with the run's prompt."""
        text, empty = (states.expand(len(noisy), -1, -1) for states in (self._text, self._empty))
        device = noisy.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            prediction = self.model.predict_guided(noisy, timesteps, text, empty, self.sds.guidance)
        return predicted_noise(prediction, noisy, alpha_bar, self.model.prediction_type)
