"""An LDM3D-4c model: its VAE, UNet, text model, tokenizer and noise schedule, without diffusers' pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.prior.completion import filled, known_latents
from dpdy_core.prior.guidance import PredictionType, add_noise, guided, predicted_clean, predicted_noise
from dpdy_core.prior.hub import hub_folder
from dpdy_core.prior.rgbd import unpack

BUNDLED = "dpdy-tiny"
BUNDLED_FOLDER = Path(__file__).parent / "dpdy_tiny"
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
diffusers_logging.disable_progress_bar()  # this project reports progress itself
transformers_logging.disable_progress_bar()

_PATTERNS = [f"{part}/{kind}" for part in PARTS for kind in ("*.json", "*.txt", "*.safetensors")]


@dataclass
class Ldm3d:
    """The parts of one model. Images are packed as in `rgbd.pack`; latents are scaled by the VAE's scaling factor.

    A UNet whose input is wider than the latents has learnt to complete pictures: beside the noise it sees which latents
    are known and those of the picture with its gaps filled (the channels of diffusers' inpainting UNets). All 0, they
    say that there is no picture.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler

    def __post_init__(self) -> None:
        self.alphas_cumprod: Tensor = self.scheduler.alphas_cumprod.to(self.device)
        self.prediction_type: PredictionType = self.scheduler.config.prediction_type
        self.reduction = 2 ** (len(self.vae.config.block_out_channels) - 1)  # image pixels per latent pixel

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def channels(self) -> int:
        """Of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def completes(self) -> bool:
        """Whether it has learnt to complete pictures."""
        return bool(self.unet.config.in_channels > self.channels)

    @property
    def multiple(self) -> int:
        """Of this many pixels the sides of a picture must be multiples: each part of the UNet halves it once more."""
        return int(self.reduction * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """Side of the images it was trained on, pixels."""
        return int(self.unet.config.sample_size) * self.reduction

    def to(self, device: torch.device | str) -> "Ldm3d":
        for module in (self.vae, self.unet, self.text_encoder):
            module.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def frozen(self) -> "Ldm3d":
        """Itself, in evaluation mode, with no parameter asking for a gradient."""
        for module in (self.vae, self.unet, self.text_encoder):
            module.eval().requires_grad_(False)
        return self

    def encode(self, rgbd: Tensor) -> Tensor:
        """Latents (B, C, H / f, W / f) of `rgbd` (B, 4, H, W) in [-1, 1]: the posterior's mode, differentiable."""
        return self.vae.encode(rgbd).latent_dist.mode() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, H, W), about [-1, 1], of latents."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def decoded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """RGB (B, 3, H, W) and relative inverse depth (B, 1, H, W), in [0, 1], of latents."""
        return unpack(self.decode(latents).float())

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """(B, L) ids, padded to the text model's length, on the model's device."""
        length = self.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device)

    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) text states."""
        return self.text_encoder(self.token_ids(prompts)).last_hidden_state

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """z_t of clean `latents` at `timesteps` (B,)."""
        return add_noise(latents, noise, self.alphas_cumprod[timesteps])

    def context(self, rgbd: Tensor, known: Tensor) -> Tensor | None:
        """(B, 1 + C, h, w): which latents are `known` (B, 1, H, W), and those of `rgbd` (B, 4, H, W) with its gaps
        filled; None if the model has not learnt to complete."""
        if not self.completes:
            return None
        return torch.cat([known_latents(known, self.reduction), self.encode(filled(rgbd, known))], dim=1)

    def joined(self, noisy: Tensor, context: Tensor | None = None) -> Tensor:
        """What the UNet takes: `noisy` (B, C, h, w), and `context`, or that of no picture, if it completes."""
        if not self.completes:
            return noisy
        if context is None:
            context = noisy.new_zeros((len(noisy), 1 + self.channels, *noisy.shape[2:]))
        return torch.cat([noisy, context], dim=1)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Tensor, context: Tensor | None = None) -> Tensor:
        """The network's raw prediction (epsilon or v) in float32; `context` (B, 1 + C, h, w) or no picture."""
        return self.unet(self.joined(noisy, context), timesteps, encoder_hidden_states=text).sample.float()

    def predict_pair(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        empty: Tensor,
        scale: float,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The raw predictions for `empty` and `text` (B, L, D); guidance by a `scale` of 1 needs only the latter."""
        if scale == 1.0:
            conditional = self.predict(noisy, timesteps, text, context)
            return conditional, conditional
        both = None if context is None else context.repeat(2, 1, 1, 1)
        pair = self.predict(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), torch.cat([empty, text]), both)
        unconditional, conditional = pair.chunk(2)
        return unconditional, conditional

    def predict_guided(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: Tensor,
        empty: Tensor,
        scale: float,
        context: Tensor | None = None,
    ) -> Tensor:
        """The raw prediction under classifier-free guidance; `text` and `empty` (B, L, D)."""
        return guided(*self.predict_pair(noisy, timesteps, text, empty, scale, context), scale)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        steps: int,
        guidance: float,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
        check: Callable[[], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """RGB (B, 3, H, W) and relative inverse depth (B, 1, H, W), in [0, 1], of `sample_latents`."""
        return self.decoded(self.sample_latents(prompts, steps, guidance, generator, size, check))

    @torch.no_grad()
    def sample_latents(
        self,
        prompts: Sequence[str],
        steps: int,
        guidance: float,
        generator: torch.Generator,
        size: tuple[int, int] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Tensor:
        """Latents (B, C, H / f, W / f) drawn by deterministic DDIM; `size` is (W, H), else the model's own square.

        Starts at the last timestep (trailing spacing), as a schedule with zero terminal SNR demands (Lin et al. 2023).
        `check` is called before every step and may raise.
        """
        width, height = size or (self.resolution, self.resolution)
        shape = (len(prompts), self.channels, height // self.reduction, width // self.reduction)
        latents = torch.randn(shape, generator=generator, device=generator.device).to(self.device)
        text, empty = self.encode_prompt(prompts), self.encode_prompt([""] * len(prompts))
        total = len(self.alphas_cumprod)
        spaced = [round(total - i * total / steps) - 1 for i in range(steps)]
        for step, t in enumerate(spaced):
            if check:
                check()
            timesteps = torch.full((len(prompts),), t, device=self.device)
            alpha = self.alphas_cumprod[timesteps]
            prediction = self.predict_guided(latents, timesteps, text, empty, guidance)
            clean = predicted_clean(prediction, latents, alpha, self.prediction_type)
            noise = predicted_noise(prediction, latents, alpha, self.prediction_type)
            last = step + 1 == steps
            latents = clean if last else add_noise(clean, noise, self.alphas_cumprod[spaced[step + 1]].expand_as(alpha))
        return latents

    def save(self, folder: Path, max_shard_size: str = "14MB") -> None:
        """Write all parts in diffusers' layout, as safetensors in the parameters' own type."""
        self.vae.save_pretrained(folder / "vae")
        self.unet.save_pretrained(folder / "unet", max_shard_size=max_shard_size)
        self.text_encoder.save_pretrained(folder / "text_encoder", max_shard_size=max_shard_size)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")
        for file in folder.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes them private to the user


def load_ldm3d(model: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Ldm3d:
    """The model named `model`: `dpdy-tiny`, a diffusers folder, or a hub id (local cache first, then the hub).

    Raises BadSettings if it isn't an LDM3D-4c model, JobFailed if its weights aren't there.
    """
    folder = find_model(model)
    kwargs: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    try:
        parts = Ldm3d(
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype, **kwargs),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, **kwargs),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, **kwargs),
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            scheduler=DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise JobFailed(f"the prior {model!r} cannot be loaded: {error}", _how_to_get(model)) from error
    check_layout(parts.vae.config, parts.unet.config, model)
    parts.tokenizer.model_max_length = parts.text_encoder.config.max_position_embeddings
    return parts.frozen().to(device)


def check_layout(vae: Any, unet: Any, model: str) -> None:
    """Raise BadSettings unless the configs are those of an RGB-D model with one depth channel."""
    remedy = "use dpdy-tiny, Intel/ldm3d-4c or another model of that layout"
    for side, channels in (("input", vae.in_channels), ("output", vae.out_channels)):
        if channels != 4:
            raise BadSettings(
                f"the VAE of {model} has {channels} {side} channels; an RGB-D prior needs 4 (RGB and one depth), since"
                " depth packed into bytes gives no usable gradient",
                remedy,
            )
    latents = vae.latent_channels
    if unet.out_channels != latents or unet.in_channels not in (latents, 2 * latents + 1):
        raise BadSettings(
            f"the UNet of {model} maps {unet.in_channels} to {unet.out_channels} channels, but the VAE's latents have"
            f" {latents} (a UNet that completes pictures takes {2 * latents + 1})",
            remedy,
        )


def find_model(model: str) -> Path:
    """The folder that holds `model`. Raises JobFailed if there is none, BadSettings if the name can't be one."""
    folder = BUNDLED_FOLDER if model == BUNDLED else Path(model).expanduser()
    if (folder / "unet").is_dir():
        return folder
    if model == BUNDLED or folder.exists():
        raise JobFailed(f"{folder} holds no diffusers model (no unet folder)", _how_to_get(model))
    return hub_folder(model, _PATTERNS, "the prior", _how_to_get(model))


def _how_to_get(model: str) -> str:
    if model == BUNDLED:
        return "train it with `python -m dpdy_core.prior.pretrain --out dpdy_core/prior/dpdy_tiny --seconds 450`"
    return (
        f"on a machine with network run `hf download {model} --local-dir FOLDER` and set prior.model (or DPDY_PRIOR) to"
        " FOLDER, or use prior.model=dpdy-tiny"
    )
