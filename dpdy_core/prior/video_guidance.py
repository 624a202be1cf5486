"""Score distillation of rendered clips by the finetuned prior with motion modules."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dpdy_core.config import VideoSdsConfig
from dpdy_core.errors import BadSettings
from dpdy_core.prior.guidance import Denoised, add_noise, distillation_gradient, reparameterised_loss, sample_timesteps
from dpdy_core.prior.motion import load_motion_adapter, motion_schedule, motion_unet, predict_clip
from dpdy_core.prior.rgbd_guidance import RgbdGuidance, packed


class VideoGuidance:
    """The video UNet made of the finetuned image UNet (shared with `image`) and motion modules, and its schedule."""

    def __init__(self, image: RgbdGuidance, adapter: str | None, sds: VideoSdsConfig) -> None:
        """`adapter` as in `prior.motion_adapter`.

        Raises JobFailed if it can't be had, BadSettings if it doesn't fit the prior or the length of the clips.
        """
        model = image.model
        self.image, self.sds = image, sds
        modules = load_motion_adapter(adapter or image.base, model.device)
        longest = int(modules.config.motion_max_seq_length)
        if sds.frames > longest:
            raise BadSettings(
                f"scene.video_sds.frames is {sds.frames}, but the motion adapter was made for at most {longest}",
                f"set scene.video_sds.frames to at most {longest}",
            )
        self.unet = motion_unet(model.unet, modules).eval()
        schedule = motion_schedule(adapter, model.scheduler)
        self.alphas_cumprod = schedule.alphas_cumprod.to(model.device)
        self.prediction_type = schedule.config.prediction_type

    def loss(
        self,
        rgb: Tensor,
        depth: Tensor,
        act: Tensor | None,
        live: Sequence[int],
        progress: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar whose gradient with respect to the `live` frames is the SDS gradient, and 0-dim tensors to log.

        One clip: `rgb` (F, 3, H, W) in [0, 1] and `depth` (F, 1, H, W) planar z, in the order of time. All frames but
        the `live` ones (input frames, and rendered ones that would cost too much memory) are encoded without gradient
        and get exactly none (4D-fy's video guidance does so with rendered frames). One timestep holds for the
        clip; noise, alpha_bar and w(t) are of the motion modules' own schedule. `act` (F, 1, H, W) in [0, 1] scales
        the gradient of each pixel. The loss is averaged over the live frames; its value means nothing.
        """
        frames, side, model = len(rgb), self.image.resolution, self.image.model
        still = [k for k in range(frames) if k not in live]
        acting = None if act is None else _chosen(act, live)
        moved = model.encode(packed(_chosen(rgb, live), _chosen(depth, live), acting, side))
        places = dict(zip(live, moved.detach(), strict=True))
        if still:
            with torch.no_grad():
                fixed = model.encode(packed(_chosen(rgb, still), _chosen(depth, still), None, side))
            places |= dict(zip(still, fixed, strict=True))
        latents = torch.stack([places[k] for k in range(frames)])
        t_max = self.sds.t_max.at(progress)
        timestep = sample_timesteps(1, self.sds.t_min, t_max, len(self.alphas_cumprod), generator).to(latents.device)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
        alpha_bar = self.alphas_cumprod[timestep].expand(frames)
        denoised = self.denoised(add_noise(latents, noise, alpha_bar), timestep)
        gradient = distillation_gradient(latents, noise, alpha_bar, denoised, self.sds, joint=True)
        gradient = _chosen(gradient, live)
        numbers = {"gradient": gradient.square().mean().sqrt(), "timestep": timestep.float().mean()}
        return reparameterised_loss(moved, gradient), numbers

    @torch.no_grad()
    def denoised(self, noisy: Tensor, timestep: Tensor) -> Denoised:
        """What the video UNet says about the clip `noisy` (F, C, h, w) without and with the run's prompt."""
        states = torch.cat([self.image.empty, self.image.text])
        device = noisy.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            pair = predict_clip(self.unet, noisy.expand(2, *noisy.shape), timestep.expand(2), states)
        return Denoised(pair[0], pair[1], self.prediction_type)


def _chosen(frames: Tensor, places: Sequence[int]) -> Tensor:
    """The frames at `places`, by slices: indexing with a list would wait for the device."""
    return torch.stack([frames[k] for k in places])
