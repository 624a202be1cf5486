"""Training of the UNet and the text model from scratch, on latents of procedural scenes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from dpdy_core.prior.autoencoder import HALF_EVERY
from dpdy_core.prior.completion import completion_timesteps, hidden_weight, seen_from_beside, sometimes
from dpdy_core.prior.guidance import training_target
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.phase import Average, Phase, checked, learning_rate
from dpdy_core.prior.scene_buffer import SceneBuffer
from dpdy_core.prior.training_step import TrainingStep

EMPTY_SHARE = 0.10  # captions left out, for classifier-free guidance
CLASS_SHARE = 0.03  # captions replaced by DreamBooth's default class prompt, so that it means "any scene"
CLASS_PROMPT = "a scene"
SMALL_SHARE = (
    0.4  # of the phase in which all batches have half the resolution: composition and shape, four times faster
)


class LatentBuffer:
    """Latents and token ids of the scenes in a SceneBuffer; of each also a context, a random part of it hidden."""

    def __init__(self, scenes: SceneBuffer, model: Ldm3d, generator: torch.Generator, batch_size: int = 256) -> None:
        """Encodes all scenes with the model's finished VAE; `generator` hides."""
        self.scenes, self._model, self._generator, self._batch_size = scenes, model, generator, batch_size
        side = scenes.size // model.reduction
        # a model that cannot complete has no context
        channels = model.channels + (1 + model.channels if model.completes else 0)
        shape = (scenes.capacity, channels, side, side)
        self.latents = torch.empty(shape, dtype=torch.float16, device=scenes.device)
        self.half_latents = self.latents.new_empty((*shape[:2], side // 2, side // 2))
        self.ids = torch.empty(
            (scenes.capacity, model.text_encoder.config.max_position_embeddings),
            dtype=torch.int32,
            device=scenes.device,
        )
        for index in torch.arange(scenes.count).split(batch_size):
            self._fill(index)

    def renew(self) -> None:
        """Make and encode new scenes in the place of the oldest."""
        for index in self.scenes.renew().split(self._batch_size):
            self._fill(index)

    @torch.no_grad()
    def _fill(self, index: Tensor) -> None:
        place = index.to(self.scenes.device)
        with torch.autocast(place.device.type, torch.bfloat16, enabled=place.device.type == "cuda"):
            rgbd = self.scenes.packed(place)
            known = seen_from_beside(rgbd[:, 3:], self._generator) if self._model.completes else rgbd[:, 3:]
            self.latents[place] = self._encoded(rgbd, known)
            self.half_latents[place] = self._encoded(avg_pool2d(rgbd, 2), avg_pool2d(known, 2).floor())
        ids = self._model.token_ids([self.scenes.captions[i] for i in index.tolist()])
        self.ids[place] = ids.to(self.ids.dtype)

    def _encoded(self, rgbd: Tensor, known: Tensor) -> Tensor:
        latents, context = self._model.encode(rgbd), self._model.context(rgbd, known)
        return (latents if context is None else torch.cat([latents, context], dim=1)).half()

    def draw(self, count: int, half: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random latents with their context (count, C + C', h, w) in float32, of whole or half the resolution, and
        token ids (count, L)."""
        index = self.scenes.draw(count, generator)
        return (self.half_latents if half else self.latents)[index].float(), self.ids[index].long()


def train_denoiser(
    model: Ldm3d,
    averaged: Ldm3d,
    buffer: LatentBuffer,
    phase: Phase,
    generator: torch.Generator,
    batch_size: int,
    peak_rate: float,
    snapshot: Callable[[int, float], None],
    graphs: bool = True,
    small_share: float = SMALL_SHARE,
) -> float:
    """Train UNet and text model of `model`, and their moving averages in `averaged`, until the phase ends.

    `snapshot(step, loss)` is called at every tick, with a finite loss. Returns the last loss.
    """
    parts: list[torch.nn.Module] = [model.unet, model.text_encoder]
    parameters = [p for part in parts for p in part.train().requires_grad_(True).parameters()]
    take = TrainingStep(parameters, 1e-2, generator, graphs)
    average = Average(parts, [averaged.unet, averaged.text_encoder], decay=0.999)
    fixed = model.token_ids(["", CLASS_PROMPT])

    def loss_of(drawn: Tensor, ids: Tensor) -> Tensor:
        latents, context = drawn[:, : model.channels], drawn[:, model.channels :]
        given = sometimes(context, generator) if model.completes else None
        with torch.autocast(latents.device.type, torch.bfloat16, take.cuda, cache_enabled=False):
            return denoising_loss(model, latents, replaced(ids, fixed, generator), generator, given)

    last = float("nan")
    for step in phase:
        half = phase.progress < small_share or step % HALF_EVERY == 0
        latents, ids = buffer.draw(batch_size, half, generator)
        loss = take(loss_of, learning_rate(peak_rate, phase.progress), latents, ids)
        average.update(step)
        if phase.ticking or step == 1:
            last = checked(loss, "the denoiser")
            phase.report(batch_size, loss=last)
            snapshot(step, last)
            buffer.renew()
    return last


def replaced(ids: Tensor, fixed: Tensor, generator: torch.Generator) -> Tensor:
    """`ids` (B, L) with some rows replaced by the empty prompt or the class prompt, the rows of `fixed` (2, L)."""
    chance = torch.rand((len(ids), 1), generator=generator, device=ids.device)
    named = torch.where(chance < EMPTY_SHARE + CLASS_SHARE, fixed[1], ids)
    return torch.where(chance < EMPTY_SHARE, fixed[0], named)


def denoising_loss(
    model: Ldm3d, latents: Tensor, ids: Tensor, generator: torch.Generator, context: Tensor | None = None
) -> Tensor:
    """Mean squared error to the training target at uniform timesteps; `latents` (B, C, h, w), `ids` (B, L).

    With `context` (see `Ldm3d.context`) rows that have one are completed; what they hide counts more.
    """
    total = len(model.alphas_cumprod)
    timesteps = torch.randint(total, (len(latents),), generator=generator, device=latents.device)
    if context is not None:
        timesteps = completion_timesteps(timesteps, context, total, generator)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    alpha = model.alphas_cumprod[timesteps]
    target = training_target(latents, noise, alpha, model.prediction_type)
    noisy = model.noisy(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)
    text = model.text_encoder(ids).last_hidden_state
    error = (model.predict(noisy, timesteps, text, context) - target).square()
    return (error if context is None else error * hidden_weight(context)).mean()


@torch.no_grad()
def held_out_loss(model: Ldm3d, rgbd: Tensor, captions: list[str], seed: int) -> float:
    """The denoising loss of `rgbd` (B, 4, H, W) with `captions`, at noise and timesteps fixed by `seed`."""
    generator = torch.Generator(rgbd.device).manual_seed(seed)
    losses = []
    for images, texts in zip(rgbd.split(64), [captions[i : i + 64] for i in range(0, len(captions), 64)], strict=True):
        losses.append(denoising_loss(model, model.encode(images), model.token_ids(texts), generator) * len(images))
    return float(torch.stack(losses).sum() / len(rgbd))
