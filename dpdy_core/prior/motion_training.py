"""Training of the motion adapter: only the temporal layers learn, on latents of procedural clips."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import MotionAdapter, UNetMotionModel
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from dpdy_core.prior.denoiser import CLASS_PROMPT, replaced
from dpdy_core.prior.guidance import training_target
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.motion import motion_unet
from dpdy_core.prior.phase import Average, Phase, checked, learning_rate
from dpdy_core.prior.rgbd import pack
from dpdy_core.prior.training_step import TrainingStep
from dpdy_core.synth.clips import sample_clips
from dpdy_core.synth.stills import Split

WHOLE_EVERY = 4  # every n-th batch at the whole resolution, with a fourth of the clips
ENCODED = 128  # frames encoded at once


class ClipUnet(nn.Module):
    """A video UNet with the interface of an image UNet: the rows of a batch are the frames of clips, one clip after the
    other, and all frames of a clip have one timestep."""

    def __init__(self, video: UNetMotionModel, frames: int) -> None:
        super().__init__()
        self.video, self.frames = video, frames

    @property
    def device(self) -> torch.device:
        return self.video.device

    @property
    def config(self) -> Any:
        return self.video.config

    def forward(self, noisy: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        clips = noisy.unflatten(0, (-1, self.frames)).transpose(1, 2)
        sample = self.video(clips, timesteps[:: self.frames], encoder_hidden_states=encoder_hidden_states).sample
        return SimpleNamespace(sample=sample.transpose(1, 2).flatten(0, 1))


def animated(model: Ldm3d, adapter: MotionAdapter, frames: int) -> Ldm3d:
    """`model` whose UNet lets the `frames` rows of each clip see each other; weights are shared, not copied."""
    return dataclasses.replace(model, unet=ClipUnet(motion_unet(model.unet, adapter), frames))


class ClipBuffer:
    """Latents and token ids of up to `capacity` clips; the oldest are replaced."""

    def __init__(self, model: Ldm3d, capacity: int, frames: int, chunk: int, split: Split, seed: int) -> None:
        """`chunk` clips are made at once, at the model's resolution."""
        self.capacity, self.frames, self.chunk, self.split = max(capacity, chunk), frames, chunk, split
        self._model = model
        side, channels = model.resolution // model.reduction, model.vae.config.latent_channels
        shape = (self.capacity, frames, channels)
        self.latents = torch.empty((*shape, side, side), dtype=torch.float16, device=model.device)
        self.half_latents = self.latents.new_empty((*shape, side // 2, side // 2))
        length = model.text_encoder.config.max_position_embeddings
        self.ids = torch.empty((self.capacity, length), dtype=torch.long, device=model.device)
        self.captions: list[str] = [""] * self.capacity
        self.count = self.made = 0
        self._generator = torch.Generator().manual_seed(seed)  # scenes are drawn on the CPU

    @torch.no_grad()
    def renew(self) -> None:
        """Make and encode `chunk` clips in the place of the oldest."""
        model = self._model
        clips = sample_clips(self.chunk, self.frames, model.resolution, self._generator, model.device, self.split)
        rgbd = pack(clips.rgb.flatten(0, 1), clips.depth.flatten(0, 1))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            whole = torch.cat([model.encode(some).half() for some in rgbd.split(ENCODED)])
            half = torch.cat([model.encode(avg_pool2d(some, 2)).half() for some in rgbd.split(ENCODED)])
        index = torch.arange(self.made, self.made + self.chunk) % self.capacity
        place = index.to(model.device)
        self.latents[place] = whole.unflatten(0, (self.chunk, self.frames))
        self.half_latents[place] = half.unflatten(0, (self.chunk, self.frames))
        self.ids[place] = model.token_ids(clips.captions)
        for i, caption in zip(index.tolist(), clips.captions, strict=True):
            self.captions[i] = caption
        self.made += self.chunk
        self.count = min(self.made, self.capacity)

    def draw(self, count: int, half: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random latents (count, F, C, h, w) in float32, of whole or half the resolution, and token ids (count, L)."""
        index = torch.randint(self.count, (count,), generator=generator, device=self.ids.device)
        return (self.half_latents if half else self.latents)[index].float(), self.ids[index]


def train_motion_adapter(
    model: Ldm3d,
    adapter: MotionAdapter,
    averaged: MotionAdapter,
    clips: ClipBuffer,
    phase: Phase,
    generator: torch.Generator,
    batch_size: int,
    peak_rate: float,
    snapshot: Callable[[int, float], None],
    graphs: bool = True,
) -> float:
    """Train `adapter`, and its moving average `averaged`, on the frozen `model` until the phase ends.

    `batch_size` clips a step at half the resolution. `snapshot(step, loss)` is called at every tick, with a finite
    loss. Returns the last loss.
    """
    # torch on the CPU crashes in the gradient through frozen convolutions whose weights are channels last
    model.unet.to(memory_format=torch.contiguous_format)
    moving = animated(model.frozen(), adapter, clips.frames)
    parameters = list(adapter.train().requires_grad_(True).parameters())
    take = TrainingStep(parameters, 1e-2, generator, graphs)
    average = Average([adapter], [averaged], decay=0.998)
    fixed = model.token_ids(["", CLASS_PROMPT])

    def loss_of(latents: Tensor, ids: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, torch.bfloat16, take.cuda, cache_enabled=False):
            return clip_loss(moving, latents, replaced(ids, fixed, generator), generator)

    last = float("nan")
    for step in phase:
        half = step % WHOLE_EVERY != 0
        latents, ids = clips.draw(batch_size if half else max(1, batch_size // 4), half, generator)
        loss = take(loss_of, learning_rate(peak_rate, phase.progress), latents, ids)
        average.update(step)
        if phase.ticking or step == 1:
            last = checked(loss, "the motion adapter")
            phase.report(batch_size, loss=last)
            snapshot(step, last)
            clips.renew()
    adapter.requires_grad_(False)
    return last


def clip_loss(model: Ldm3d, latents: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error to the training target; `latents` (B, F, C, h, w), `ids` (B, L).

    Each clip has one uniform timestep, each frame its own noise. `model` may be `animated`, or see single frames.
    """
    clips, frames = latents.shape[:2]
    timesteps = torch.randint(len(model.alphas_cumprod), (clips,), generator=generator, device=latents.device)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device).flatten(0, 1)
    timesteps, clean = timesteps.repeat_interleave(frames), latents.flatten(0, 1)
    target = training_target(clean, noise, model.alphas_cumprod[timesteps], model.prediction_type)
    with torch.no_grad():
        text = model.text_encoder(ids).last_hidden_state.repeat_interleave(frames, dim=0)
    return (model.predict(model.noisy(clean, noise, timesteps), timesteps, text) - target).square().mean()


@torch.no_grad()
def held_out_clip_loss(model: Ldm3d, clips: ClipBuffer, seed: int, batch_size: int = 16) -> float:
    """The loss of all of `clips`, mean of both resolutions, at noise and timesteps fixed by `seed`."""
    generator = torch.Generator(model.device).manual_seed(seed)
    losses, weights = [], []
    for index in torch.arange(clips.count, device=model.device).split(batch_size):
        for latents in (clips.latents, clips.half_latents):
            losses.append(clip_loss(model, latents[index].float(), clips.ids[index], generator) * len(index))
            weights.append(len(index))
    return float(torch.stack(losses).sum() / sum(weights))


def flicker(frames: Tensor) -> float:
    """Mean absolute difference between neighbouring frames of clips (B, F, C, H, W)."""
    return float(frames.diff(dim=1).abs().mean())


@torch.no_grad()
def sample_motion(
    model: Ldm3d, prompts: list[str], frames: int, steps: int, guidance: float, seed: int
) -> tuple[Tensor, Tensor]:
    """RGB (B, F, 3, S, S) and relative inverse depth (B, F, 1, S, S), in [0, 1], of one clip a prompt by DDIM.

    `model` is `animated` for `frames`, or draws every frame by itself. Frames start from noise of their own.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    repeated = [prompt for prompt in prompts for _ in range(frames)]
    rgb, depth = model.sample(repeated, steps, guidance, generator)
    return rgb.unflatten(0, (-1, frames)), depth.unflatten(0, (-1, frames))


def motion_scores(
    model: Ldm3d, adapter: MotionAdapter, clips: ClipBuffer, prompts: list[str], steps: int = 30
) -> dict[str, float]:
    """Held-out denoising loss and flicker of samples, with `adapter` and frame by frame without it; flicker of `clips`
    through the VAE."""
    scores = {}
    for suffix, judged in (("", animated(model, adapter, clips.frames)), ("_without", model)):
        scores[f"held_out_loss{suffix}"] = round(held_out_clip_loss(judged, clips, seed=0), 5)
        scores[f"flicker{suffix}"] = round(flicker(sample_motion(judged, prompts, clips.frames, steps, 3.0, 0)[0]), 5)
    with torch.no_grad():
        real = [model.decoded(latents.float())[0] for latents in clips.latents[: min(8, clips.count)]]
    scores["flicker_of_scenes"] = round(flicker(torch.stack(real)), 5)
    return scores
