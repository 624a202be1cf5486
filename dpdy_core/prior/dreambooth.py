"""DreamBooth finetuning (Ruiz et al. 2023) of the RGB-D prior on the capture's own frames with their depth."""

import math
import shutil
import time
from functools import partial
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from dpdy_core.config import PriorConfig, RunConfig
from dpdy_core.errors import Cancelled
from dpdy_core.prior import pictures
from dpdy_core.prior.completion import completion_timesteps, hidden_weight, seen_from_beside, sometimes
from dpdy_core.prior.finetune_state import load_state, remove_states, save_state
from dpdy_core.prior.finetuned import (
    add_lora,
    base_of,
    interpolate_to_base,
    save_full,
    save_lora,
    trainable,
    write_record,
)
from dpdy_core.prior.frames import TrainingFrames
from dpdy_core.prior.graphed import Prediction, graph_training
from dpdy_core.prior.guidance import training_target
from dpdy_core.prior.ldm3d import load_ldm3d
from dpdy_core.prior.motion import find_motion_adapter
from dpdy_core.prior.phase import checked
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, write_atomic
from dpdy_core.runtime import resolve_device

SCORED_FRAMES = 4  # whose denoising loss is recorded before and after
SCORED_TIMESTEPS = (0.1, 0.3, 0.5, 0.7)  # shares of the noise schedule
SAMPLE_GUIDANCE = 3.0
SAMPLES_AT_ONCE = 4
BLOCK = 16  # steps whose crops are cut and encoded together
ENCODED_PIXELS = 1 << 20  # at once


def finetune_prior(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Finetune the prior on the train frames with their depth; writes `prior/`.

    Continues from the last checkpoint if there is one. Without finetuning only `prior.json` is written.
    Raises BadSettings or JobFailed if the base model can't be used, Cancelled after a checkpoint.
    """
    # what is missing is said now, not hours later
    if config.scene.video_sds.enabled:
        find_motion_adapter(config.prior.motion_adapter or config.prior.model)
    if config.prior.finetune == "none" or config.prior.steps == 0:
        scene = config.scene
        if scene.sds.enabled or scene.video_sds.enabled or scene.refinement.enabled:
            load_ldm3d(config.prior.model, resolve_device(config.device))
        write_record(run.prior, _record(config.prior, "none", config.prior.class_prompt))
        return
    DreamBooth(run, config, reporter).train()


def instance_prompt(class_prompt: str, token: str) -> str:
    """The class prompt with the rare word before the noun: "a scene" becomes "a sks scene"."""
    first, _, rest = class_prompt.strip().partition(" ")
    if first.lower() in ("a", "an", "the") and rest:
        return f"{first} {token} {rest}"
    return f"{token} {class_prompt.strip()}"


def _record(settings: PriorConfig, method: str, prompt: str, **numbers: float | int) -> dict[str, Any]:
    return {
        "base": settings.model,
        "method": method,
        "prompt": prompt,
        "class_prompt": settings.class_prompt,
        "resolution": settings.resolution,
        "rank": settings.rank,
        "text": settings.train_text_encoder,
        "denoising_loss_before": None,
        "denoising_loss_after": None,
        **numbers,
    }


def cosine_decay(progress: float) -> float:
    """Factor of the learning rate at `progress` in [0, 1]: 1 first, 0 at the end (Loshchilov and Hutter 2017, eq. 5).

    At a constant rate the last few crops decide what the prior expects, and two runs differ by a decibel.
    """
    return (1 + math.cos(math.pi * progress)) / 2


class DreamBooth:
    """One finetuning: the model with its trainable part, the frames, the optimiser."""

    def __init__(self, run: RunDir, config: RunConfig, reporter: Reporter) -> None:
        self.folder, self.settings, self.seed, self.reporter = run.prior, config.prior, config.seed, reporter
        device = resolve_device(config.device)
        self.model = load_ldm3d(self.settings.model, device)
        self.frames = TrainingFrames(run.capture, self.settings.resolution, self.model.multiple, device, reporter)
        # it lives on the CPU, so that every device draws the same crops and the same noise
        self.generator = torch.Generator().manual_seed(self.seed)
        self.prompts = [instance_prompt(self.settings.class_prompt, self.settings.token), self.settings.class_prompt]
        self.class_count = self.settings.class_images if self.settings.preservation_weight > 0 else 0
        self.block = -1  # of crops that were cut last
        self.prediction: Prediction | None = None
        self.batches = -(-self.class_count // SAMPLES_AT_ONCE)  # of class images, reported as steps too

    def train(self) -> None:
        """Class latents, all steps, the artefacts. A checkpoint by time, and before Cancelled leaves."""
        class_latents = self.class_latents()
        self.prepare()
        settings = {**self.settings.model_dump(mode="json"), "seed": self.seed}
        header = load_state(self.folder, self.parameters, self.optimiser, self.generator, settings, self.reporter.warn)
        if header is None:
            header = {"identity": settings, "step": 0, "denoising_loss_before": self.score()}
        self.graph()
        saved = time.monotonic()
        for step in range(header["step"] + 1, self.settings.steps + 1):
            loss = self.step(step, class_latents)
            numbers = {"loss": checked(loss, "the finetuning")} if self.reporter.due() else {}
            header["step"] = step
            try:
                self.reporter.step(self.batches + step, self.batches + self.settings.steps, **numbers)
            except Cancelled:
                self.save(header)
                raise
            if time.monotonic() - saved >= self.settings.checkpoint_seconds:
                self.save(header)
                saved = time.monotonic()
        self.save(header)
        self.finish(header["denoising_loss_before"])

    def class_latents(self) -> Tensor | None:
        """Latents that the base model draws for the class prompt, for prior preservation.

        Kept as latents: decoding and encoding again would only blur them. Each batch is cached in its own file and
        has its own seed, so that a killed run draws only what is missing.
        """
        drawn = []
        for batch in range(self.batches):
            path = self.folder / "class_latents" / f"{batch:03d}.safetensors"
            if not path.exists():
                count = min(SAMPLES_AT_ONCE, self.class_count - batch * SAMPLES_AT_ONCE)
                latents = self.draw([self.prompts[1]] * count, seed=self.seed + 1 + batch).cpu()
                write_atomic(path, partial(save_file, {"latents": latents}))
            drawn.append(load_file(path)["latents"])
            self.reporter.step(batch + 1, self.batches + self.settings.steps)
        return torch.cat(drawn).to(self.model.device) if drawn else None

    def draw(self, prompts: list[str], seed: int) -> Tensor:
        """Latents sampled for `prompts`."""
        settings = self.settings
        generator = torch.Generator().manual_seed(seed)
        with self.half_precision():
            return self.model.sample_latents(
                prompts, settings.sampling_steps, SAMPLE_GUIDANCE, generator, self.frames.size, self.reporter.check
            )

    def half_precision(self) -> torch.autocast:
        """bfloat16 on CUDA, nothing elsewhere."""
        device = self.model.device.type
        return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

    def prepare(self) -> None:
        """Make the adapters or the whole UNet trainable, and the optimiser."""
        text = self.settings.train_text_encoder
        if self.settings.finetune == "lora":
            add_lora(self.model, self.settings.rank, text, self.seed)
        else:
            self.model.unet.requires_grad_(True)
            self.model.text_encoder.requires_grad_(text)
        self.parameters = trainable(self.model)
        self.base = base_of(self.parameters) if self.settings.interpolation < 1 else {}
        fused = self.model.device.type == "cuda"
        self.optimiser = torch.optim.AdamW(list(self.parameters.values()), lr=self.settings.learning_rate, fused=fused)
        self.text = None if text else self.model.encode_prompt(self.prompts)

    def step(self, step: int, class_latents: Tensor | None) -> Tensor:
        """One step on random crops and, for prior preservation, as many class latents; returns the loss.

        A model that completes pictures learns to complete some of the crops.
        """
        latents, share, context = self.crops(step)
        count = len(latents)
        if context is not None:
            context = sometimes(context, self.generator)
            share = share * hidden_weight(context)
        kinds = [0] * count
        if class_latents is not None:
            chosen = torch.randint(len(class_latents), (count,), generator=self.generator)
            latents = torch.cat([latents, class_latents[chosen.to(class_latents.device)]])
            kinds += [1] * count
            context = None if context is None else torch.cat([context, torch.zeros_like(context)])
        total = len(self.model.alphas_cumprod)
        timesteps = torch.randint(total, (len(latents),), generator=self.generator).to(latents.device)
        if context is not None:
            timesteps = completion_timesteps(timesteps, context, total, self.generator)
        error = self.squared_error(latents, kinds, timesteps, self.generator, self.prediction, context)
        loss = (error[:count] * share).sum() / share.sum().clamp_min(1e-6)
        if class_latents is not None:
            loss = loss + self.settings.preservation_weight * error[count:].mean()
        rate = self.settings.learning_rate * cosine_decay((step - 1) / self.settings.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimiser.step()
        return loss

    @torch.no_grad()
    def crops(self, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latents (B, C, h, w) of the crops of `step` (from 1), the valid share (B, 1, h, w) of their pixels, and
        contexts that hide a part of them, if the model completes.

        They are cut and encoded for BLOCK steps together. A block's places depend on its number and the seed alone, so
        that a run that is killed within one cuts the same crops again.
        """
        block, place = divmod(step - 1, BLOCK)
        count = self.settings.batch_size
        if block != self.block:
            generator = torch.Generator().manual_seed((self.seed << 24) + block)
            rgbd, valid = self.frames.random_crops(BLOCK * count, generator)
            at_once = max(1, ENCODED_PIXELS // self.settings.resolution**2)
            latents = torch.cat([self.model.encode(part) for part in rgbd.split(at_once)])
            self.latents, self.shares = latents, functional.interpolate(valid, latents.shape[-2:], mode="area")
            self.contexts = self.hidden(rgbd, valid, at_once, generator) if self.model.completes else None
            self.block = block
        some = slice(place * count, (place + 1) * count)
        return self.latents[some], self.shares[some], None if self.contexts is None else self.contexts[some]

    def hidden(self, rgbd: Tensor, valid: Tensor, at_once: int, generator: torch.Generator) -> Tensor:
        """Contexts of crops `rgbd` (B, 4, H, W), of which a part, and all that is not `valid`, is hidden."""
        known = seen_from_beside(rgbd[:, 3:], generator) * (valid > 0.5)
        parts = zip(rgbd.split(at_once), known.split(at_once), strict=True)
        return torch.cat([context for part in parts if (context := self.model.context(*part)) is not None])

    def squared_error(
        self,
        latents: Tensor,
        kinds: list[int],
        timesteps: Tensor,
        generator: torch.Generator,
        prediction: Prediction | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Squared error (B, 1, h, w) to the training target; `kinds` picks each row's prompt (instance 0, class 1).

        `prediction` stands for the UNet, if given. `context` is that of pictures to complete.
        """
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        alpha = self.model.alphas_cumprod[timesteps]
        target = training_target(latents, noise, alpha, self.model.prediction_type)
        noisy = self.model.noisy(latents, noise, timesteps)
        with self.half_precision():
            states = self.model.encode_prompt(self.prompts) if self.text is None else self.text
            if prediction is None:
                predicted = self.model.predict(noisy, timesteps, states[kinds], context)
            else:
                predicted = prediction(self.model.joined(noisy, context), timesteps, states[kinds])
        return (predicted - target).square().mean(dim=1, keepdim=True)

    def graph(self) -> None:
        """Capture the UNet's training call as CUDA graphs, where that is possible."""
        if self.model.device.type != "cuda" or self.text is None:
            return
        rows = self.settings.batch_size * (2 if self.class_count else 1)
        width, height = (side // self.model.reduction for side in self.frames.size)
        noisy = torch.zeros((rows, self.model.unet.config.in_channels, height, width), device=self.model.device)
        timesteps = torch.zeros(rows, dtype=torch.long, device=self.model.device)
        try:
            self.prediction = graph_training(self.model.unet, noisy, timesteps, self.text[[0] * rows])
        except RuntimeError as error:
            self.reporter.fall_back(f"the finetuning runs without CUDA graphs, several times slower: {error}")

    @torch.no_grad()
    def score(self) -> float:
        """The denoising loss of a few whole frames, held out if possible, at fixed timesteps and noise."""
        crops, _ = self.frames.fixed_crops(self.frames.scored(SCORED_FRAMES))
        latents = self.model.encode(crops).repeat_interleave(len(SCORED_TIMESTEPS), dim=0)
        steps = torch.tensor([int(t * len(self.model.alphas_cumprod)) for t in SCORED_TIMESTEPS])
        timesteps = steps.repeat(len(crops)).to(latents.device)
        generator = torch.Generator().manual_seed(self.seed)
        return float(self.squared_error(latents, [0] * len(latents), timesteps, generator).mean())

    def save(self, header: dict[str, Any]) -> None:
        save_state(self.folder, self.parameters, self.optimiser, self.generator, header)

    def finish(self, before: float) -> None:
        """Write adapters or weights, sample pictures and `prior.json`; then remove what only a resume needs.

        All are of the weights between the base model's and the finetuned ones that `prior.interpolation` says.
        """
        interpolate_to_base(self.parameters, self.base, self.settings.interpolation)
        after = self.score()
        write = save_lora if self.settings.finetune == "lora" else save_full
        write(self.model, self.folder, self.settings.train_text_encoder)
        self.write_samples()
        losses = {"denoising_loss_before": round(before, 6), "denoising_loss_after": round(after, 6)}
        numbers = {"steps": self.settings.steps, "frames": len(self.frames)}
        write_record(self.folder, _record(self.settings, self.settings.finetune, self.prompts[0], **losses, **numbers))
        remove_states(self.folder)
        shutil.rmtree(self.folder / "class_latents", ignore_errors=True)

    @torch.no_grad()
    def write_samples(self) -> None:
        """Pictures of what the finetuned model draws for its prompt, colour beside depth."""
        for index in range(self.settings.validation_samples):
            rgb, depth = self.model.decoded(self.draw([self.prompts[0]], seed=self.seed + 1 + index))
            path = self.folder / "samples" / f"{index:03d}.png"
            pictures.write_picture(path, pictures.tiles(rgb, depth, -1)[0])
            self.reporter.preview(path.relative_to(self.folder.parent).as_posix())
