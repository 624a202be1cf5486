"""Trains the bundled prior on procedural scenes: `python -m dpdy_core.prior.pretrain --out DIR --seconds N`.

First the VAE, then the UNet with the text model, then the motion adapter; then samples are judged. `--seconds` covers
everything after the imports: scenes, training, snapshots and preview. DIR always holds the newest snapshot, whole or
not at all.
"""

import argparse
import dataclasses
import re
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter
from torch import Tensor

from dpdy_core.errors import BadSettings, DpdyError
from dpdy_core.prior.autoencoder import Restore, autoencoder_psnr, restored, set_scaling_factor, train_autoencoder
from dpdy_core.prior.denoiser import SMALL_SHARE, LatentBuffer, held_out_loss, train_denoiser
from dpdy_core.prior.finishing import add_arguments, judge, train_motion
from dpdy_core.prior.ldm3d import Ldm3d, load_ldm3d
from dpdy_core.prior.motion import FOLDER as MOTION_FOLDER
from dpdy_core.prior.motion import load_motion_adapter, save_motion_adapter
from dpdy_core.prior.motion_training import animated, sample_motion
from dpdy_core.prior.phase import Phase
from dpdy_core.prior.preview import write_motion, write_preview
from dpdy_core.prior.rgbd import pack
from dpdy_core.prior.scene_buffer import SceneBuffer
from dpdy_core.prior.tiny import TOY, Layout, build_tiny, widened
from dpdy_core.progress import Reporter, console
from dpdy_core.rundir import folder_atomic, read_json, write_json
from dpdy_core.runtime import environment, resolve_device, seed_everything
from dpdy_core.synth.dataset import sample_batch
from dpdy_core.synth.stills import Split

HELD_OUT = 256  # scenes that score the model
MOST_MIB = 40  # of weights in the repository
RECORD = "pretrain.json"


class Pretraining:
    """One run: the model in training, its average, the scenes, and the figures for the record."""

    def __init__(self, options: argparse.Namespace, reporter: Reporter) -> None:
        self.began = time.monotonic()
        self.options, self.reporter = options, reporter
        self.device = resolve_device(options.device)
        self.generator = torch.Generator(self.device).manual_seed(options.seed)
        self.figures: dict[str, Any] = {"seed": options.seed, "complete": False}
        self.adapter: MotionAdapter | None = None  # the average
        self._snapshot_at = self.began
        seed_everything(options.seed)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True

    def train(self) -> None:
        """All phases, then the preview and the finished record."""
        options = self.options
        refuse_foreign_folder(options.out)
        scenes = self.fill()
        self.build(scenes.captions[: scenes.count])
        self.figures["parameters"] = parameter_counts(self.model)
        self.held_out = self.draw(min(HELD_OUT, options.scenes), "held-out")
        if options.vae_share > 0:
            self.train_vae(scenes)
        if options.unet_share > 0:
            self.train_unet(scenes)
        if options.motion_share > 0:
            self.train_motion()
        self.figures.update(complete=True, scenes=scenes.made, held_out_loss=self.score())
        self.save()
        if options.judge_share > 0:
            drawn = self.draw(options.judged, "train")
            self.figures |= judge(self.averaged, *drawn, options, self.deadline(1 - options.reserve), self.reporter)
            self.save()
        mib = self.figures["weights_mib"]
        if mib > MOST_MIB:
            self.reporter.warn(f"the weights take {mib} MiB, more than {MOST_MIB}")
        sys.stdout.write(f"{options.out}: {mib} MiB of weights, {time.monotonic() - self.began:.0f} s\n")
        if options.preview:
            captions = self.draw(20, "train")[1]
            write_preview(self.averaged, self.held_out[0][:10], captions, options.preview)
            if self.adapter:
                moving = animated(self.averaged, self.adapter, options.frames)
                write_motion(*sample_motion(moving, captions[:3], options.frames, 40, 3.0, 0), options.preview)

    def deadline(self, share: float) -> float:
        """The moment at which `share` of the time has gone."""
        return self.began + share * self.options.seconds

    def fill(self) -> SceneBuffer:
        """The first scenes, for at most `--fill-share` of the time."""
        options = self.options
        scenes = SceneBuffer(options.scenes, options.size, options.chunk, self.device, options.seed)
        if options.vae_share == options.unet_share == 0:
            return scenes
        phase = Phase("scenes", self.deadline(options.fill_share), self.reporter)
        for _ in phase:
            scenes.renew()
            if phase.ticking:
                phase.report(scenes.chunk)
            if scenes.made >= scenes.capacity:
                break
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        filled = self.figures["fill"] = phase.done(scenes=scenes.made)
        # every later tick makes one chunk: at most a twelfth of the time goes there
        self.tick = max(2.0, 12 * filled["seconds"] / filled["steps"])
        return scenes

    def build(self, captions: list[str]) -> None:
        """The model, new or that of `--start`, and a copy that holds its moving average."""
        options = self.options
        if options.start:
            self.model = load_ldm3d(str(options.start), self.device)
            if chosen_layout(options).completes and not self.model.completes:
                widened(self.model.unet)
            self.figures["earlier"] = read_json(options.start / RECORD)
            if (options.start / MOTION_FOLDER).is_dir():
                self.adapter = load_motion_adapter(str(options.start), self.device)
        else:
            words = {word for caption in captions for word in re.findall("[a-z]+", caption.lower())}
            self.model = build_tiny(words, options.seed, chosen_layout(options)).to(self.device)
        for module in (self.model.vae, self.model.unet):
            module.to(memory_format=torch.channels_last)
        self.averaged = dataclasses.replace(
            self.model,
            vae=deepcopy(self.model.vae),
            unet=deepcopy(self.model.unet),
            text_encoder=deepcopy(self.model.text_encoder),
        ).frozen()

    def draw(self, count: int, split: Split) -> tuple[Tensor, list[str]]:
        """Packed scenes and captions that no training batch contains."""
        generator = torch.Generator().manual_seed(self.options.seed + 1)
        scenes = sample_batch(count, self.options.size, generator, self.device, split)
        return pack(scenes.rgb, scenes.depth), scenes.captions

    def train_vae(self, scenes: SceneBuffer) -> None:
        """The VAE for `--vae-share` of the time; from then on the model uses its average."""
        options = self.options
        vae, averaged = self.model.vae, self.averaged.vae
        restore: Restore = torch.compile(restored, dynamic=False) if options.compile else restored
        gone = (time.monotonic() - self.began) / options.seconds
        phase = Phase("vae", self.deadline(gone + options.vae_share), self.reporter, self.tick)
        loss = train_autoencoder(
            vae,
            averaged,
            scenes,
            phase,
            self.generator,
            options.vae_batch,
            options.vae_learning_rate,
            restore,
            options.graphs,
        )
        self.model.vae = averaged
        sample = scenes.packed(scenes.draw(min(256, scenes.count), self.generator))
        factor = set_scaling_factor(averaged, sample)
        psnr = autoencoder_psnr(averaged, self.held_out[0][:64])
        phase.report(options.vae_batch, scaling_factor=factor, **psnr)
        self.figures["vae"] = phase.done(loss=loss, scaling_factor=factor, **psnr)
        self.save()

    def train_unet(self, scenes: SceneBuffer) -> None:
        """The UNet and the text model for the rest of the time, less what the later phases, saving and preview need."""
        options = self.options
        buffer = LatentBuffer(scenes, self.averaged, self.generator)
        later = options.reserve + options.motion_share + options.judge_share
        phase = Phase("unet", self.deadline(1 - later), self.reporter, self.tick)

        def snapshot(step: int, loss: float) -> None:
            if time.monotonic() - self._snapshot_at < options.snapshot_seconds:
                return
            score = self.score()
            self.figures["unet"] = {"steps": step, "loss": loss, "held_out_loss": score}
            phase.report(options.batch, held_out_loss=score)
            self.save()

        loss = train_denoiser(
            self.model,
            self.averaged,
            buffer,
            phase,
            self.generator,
            options.batch,
            options.learning_rate,
            snapshot,
            options.graphs,
            options.small_share,
        )
        self.figures["unet"] = phase.done(loss=loss, samples=phase.step * options.batch)
        self.save()

    def train_motion(self) -> None:
        """The motion adapter for `--motion-share` of the time, on the averaged model, which stays as it is."""
        options = self.options

        def publish(adapter: MotionAdapter, figures: dict[str, float], finished: bool) -> None:
            self.adapter, self.figures["motion"] = adapter, figures
            if finished or time.monotonic() - self._snapshot_at >= options.snapshot_seconds:
                self.save()

        deadline = self.deadline(1 - options.reserve - options.judge_share)
        train_motion(self.averaged, self.adapter, options, deadline, self.reporter, self.generator, publish)

    def score(self) -> float:
        """The held-out denoising loss of the averaged model."""
        return round(held_out_loss(self.averaged, *self.held_out, seed=0), 5)

    def save(self) -> None:
        """Replace the output folder by the averaged model in half precision, with the record."""
        averaged = self.averaged
        half = dataclasses.replace(
            averaged,
            vae=deepcopy(averaged.vae).half(),
            unet=deepcopy(averaged.unet).half(),
            text_encoder=deepcopy(averaged.text_encoder).half(),
        )
        for module in (half.vae, half.unet):
            module.to(memory_format=torch.contiguous_format)
        with folder_atomic(self.options.out) as folder:
            half.save(folder)
            if self.adapter:
                save_motion_adapter(deepcopy(self.adapter).half(), folder / MOTION_FOLDER)
            size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
            self.figures["weights_mib"] = round(size / 2**20, 2)
            self.figures["seconds"] = round(time.monotonic() - self.began, 1)
            write_json(folder / RECORD, {**self.figures, "environment": environment(self.device)})
        self._snapshot_at = time.monotonic()


def parameter_counts(model: Ldm3d) -> dict[str, int]:
    """Parameters of each part."""
    parts = {"vae": model.vae, "unet": model.unet, "text_encoder": model.text_encoder}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def refuse_foreign_folder(out: Path) -> None:
    """Raise BadSettings if `out`, which snapshots replace, holds something that isn't an earlier run's."""
    if out.exists() and any(out.iterdir()) and not (out / RECORD).exists():
        raise BadSettings(f"{out} holds other files, and snapshots would replace them", "give a new folder")


def chosen_layout(options: argparse.Namespace) -> Layout:
    """That of dpdy-tiny, or a toy, for images of `--size`."""
    return dataclasses.replace(TOY if options.toy else Layout(), resolution=options.size)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dpdy_core.prior.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model folder, in diffusers' layout")
    parser.add_argument("--seconds", type=float, required=True, help="budget for everything after the imports")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--preview", type=Path, help="folder for pictures of samples and reconstructions")
    parser.add_argument("--start", type=Path, help="model folder to go on from instead of random weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels")
    parser.add_argument("--toy", action="store_true", help="the tests' architecture instead of dpdy-tiny's")
    parser.add_argument("--scenes", type=int, default=80_000, help="scenes held on the device")
    parser.add_argument("--chunk", type=int, default=256, help="scenes made at once")
    parser.add_argument("--batch", type=int, default=256, help="latents a step of the UNet")
    parser.add_argument("--learning-rate", type=float, default=4e-4, help="peak rate of the UNet and text model")
    parser.add_argument("--vae-batch", type=int, default=24, help="images a step, or thrice as many crops")
    parser.add_argument("--vae-learning-rate", type=float, default=8e-4)
    parser.add_argument("--vae-share", type=float, default=0.32, help="of the time; 0 keeps the VAE of --start")
    parser.add_argument("--unet-share", type=float, default=1.0, help="0 keeps the UNet of --start; else all time left")
    parser.add_argument("--fill-share", type=float, default=0.05, help="of the time, for scenes before training")
    parser.add_argument("--small-share", type=float, default=SMALL_SHARE, help="of the UNet's time, at half the size")
    parser.add_argument("--reserve", type=float, default=0.06, help="share of the time kept for saving and preview")
    parser.add_argument("--snapshot-seconds", type=float, default=60.0)
    parser.add_argument("--no-graphs", dest="graphs", action="store_false", help="no CUDA graphs of the steps")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile of the VAE's steps on crops: a minute, then twice the speed",
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if not options.start and 0 in (options.vae_share, options.unet_share):
        parser.error("--vae-share 0 and --unet-share 0 need --start")
    return options


def main(arguments: list[str] | None = None) -> int:
    try:
        Pretraining(parse(arguments), Reporter(console(), interval=0)).train()
    except DpdyError as error:
        sys.stderr.write(f"error: {error.detail}. {error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
