"""The diffusion side of preset `paper` at its real size with random weights: does it fit, how long does a step take.

`python -m tests.bench.paper_size` builds a model of the size of Intel/ldm3d-4c and AnimateDiff's motion modules without
a hub, saves both, loads them as a run does, and times a DreamBooth step, an RGB-D SDS step, a painted view and a video
SDS step, each with its peak of memory. `--small` does the same with toy sizes. Nothing here passes or fails.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from dpdy_core.config import RunConfig, SceneConfig
from dpdy_core.geometry.cameras import look_at
from dpdy_core.ingest.clip import load_clip, write_transforms
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.clip_views import ClipViews
from dpdy_core.optimise.distillation import Distillation
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.training import Training
from dpdy_core.optimise.video_distillation import VideoDistillation
from dpdy_core.presets import resolve
from dpdy_core.prior.dreambooth import BLOCK, DreamBooth
from dpdy_core.prior.finetuned import save_lora, write_record
from dpdy_core.prior.frames import fitted_to_prior
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.motion import save_motion_adapter
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.rgbd_painter import RgbdPainter
from dpdy_core.prior.tokenizer import build_tokenizer
from dpdy_core.prior.video_guidance import VideoGuidance
from dpdy_core.progress import Reporter
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.rundir import RunDir
from dpdy_core.runtime import resolve_device
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.scene.fusion import fuse_encoders
from dpdy_core.scene.hashgrid import choose_backend
from dpdy_core.scene.scene import Scene

REPEATS = 4


@dataclass(frozen=True)
class Sizes:
    """Those of SD 1.x, which LDM3D has but for the VAE's fourth channel, and of AnimateDiff's motion modules."""

    resolution: int = 512
    vae: tuple[int, ...] = (128, 256, 512, 512)
    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: int = 8
    norm_groups: int = 32
    text_width: int = 768
    text_layers: int = 12
    vocabulary: int = 49408
    frames: int = 20
    image: tuple[int, int] = (960, 540)  # width, height of the capture


SMALL = Sizes(64, (8, 8, 16, 16), (16, 16, 32, 32), 2, 8, 32, 1, 2000, 10, (96, 72))
SMALL_SETTINGS = {
    "scene.sds.resolution": 16,
    "scene.video_sds.resolution": 16,
    "scene.video_sds.frames": 8,
    "prior.resolution": 64,
    "prior.batch_size": 2,
}


def build_model(sizes: Sizes, device: torch.device) -> tuple[Ldm3d, MotionAdapter]:
    """Random weights in half precision."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["scene"], 77)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    with torch.device(device):
        vae = AutoencoderKL(
            in_channels=4,
            out_channels=4,
            latent_channels=4,
            block_out_channels=sizes.vae,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=sizes.norm_groups,
            sample_size=sizes.resolution,
        )
        unet = UNet2DConditionModel(
            sample_size=sizes.resolution // 8,
            block_out_channels=sizes.unet,
            attention_head_dim=sizes.heads,
            norm_num_groups=sizes.norm_groups,
            cross_attention_dim=sizes.text_width,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.text_width,
                intermediate_size=4 * sizes.text_width,
                num_hidden_layers=sizes.text_layers,
                num_attention_heads=max(1, sizes.text_width // 64),
                **ids,
            )
        )
        adapter = MotionAdapter(
            block_out_channels=sizes.unet,
            motion_num_attention_heads=sizes.heads,
            motion_norm_num_groups=sizes.norm_groups,
        )
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return Ldm3d(vae.half(), unet.half(), text.half(), tokenizer, schedule), adapter.half()


def write_capture(capture: Path, sizes: Sizes) -> None:
    """A canonical capture with depth: blurred noise over a slope, seen from an arc."""
    width, height = sizes.image
    rng = np.random.default_rng(0)
    (capture / "images").mkdir(parents=True)
    slope = np.linspace(1500, 4000, width, dtype=np.uint16)[None].repeat(height, 0)
    cv2.imwrite(str(capture / "images" / "depth.png"), slope)
    entries = []
    for k in range(sizes.frames):
        noise = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        cv2.imwrite(str(capture / "images" / f"{k}.png"), cv2.resize(noise, (width, height)))
        centre = torch.tensor([2.0 * np.sin(k / 20), 0.2, 2.0 * np.cos(k / 20)], dtype=torch.float32)
        matrix = look_at(centre, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])).tolist()
        entry = {"file_path": f"images/{k}.png", "depth_file_path": "images/depth.png", "time": k / (sizes.frames - 1)}
        entries.append({**entry, "transform_matrix": [*matrix, [0.0, 0.0, 0.0, 1.0]]})
    names = [entry["file_path"] for entry in entries]
    intrinsics = {"w": width, "h": height, "fl_x": width, "fl_y": width, "cx": width / 2, "cy": height / 2}
    splits = {"train_filenames": names, "val_filenames": [], "test_filenames": []}
    write_transforms(capture, {**intrinsics, **splits, "frames": entries})


class Table:
    """Rows of time and peak memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        sys.stdout.write(f"\n  {'':<58}{'seconds':>10}{'peak GiB':>10}\n")

    def row(self, name: str, action: Callable[[], object], repeats: int = REPEATS) -> None:
        """The mean time of `action` after one call to warm up (none if `repeats` is 1)."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        if repeats > 1:
            action()
        self._wait()
        started = time.perf_counter()
        for _ in range(repeats):
            action()
        self._wait()
        seconds = (time.perf_counter() - started) / repeats
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peak = (torch.cuda.max_memory_allocated() if cuda else process) / 2**30
        sys.stdout.write(f"  {name:<58}{seconds:>10.3f}{peak:>10.2f}\n")
        sys.stdout.flush()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def bench_dreambooth(run: RunDir, config: RunConfig, table: Table) -> None:
    """A LoRA step with prior preservation; leaves a finished prior in the run."""
    made: list[DreamBooth] = []
    table.row("load the model", lambda: made.append(DreamBooth(run, config, Reporter())), repeats=1)
    training = made.pop()
    width, height = (side // training.model.reduction for side in training.frames.size)
    class_latents = torch.randn((8, 4, height, width), device=training.model.device)
    training.prepare()
    table.row(f"crops of {BLOCK} steps, cut and encoded", lambda: training.crops(1), repeats=1)
    table.row("DreamBooth: capture the UNet as a CUDA graph", training.graph, repeats=1)
    batch = config.prior.batch_size
    table.row(
        f"DreamBooth: a LoRA step, {batch} crops and {batch} class images", lambda: training.step(2, class_latents)
    )
    save_lora(training.model, run.prior, text=False)
    record = {"base": config.prior.model, "method": "lora", "prompt": "a sks scene", "text": False}
    write_record(run.prior, {**record, "resolution": config.prior.resolution, "rank": config.prior.rank})


def bench_distillation(run: RunDir, config: RunConfig, device: torch.device, table: Table) -> None:
    """Both distillation steps with the preset's own scene, forward and backward."""
    clip = load_clip(run.capture, "train", config.scene.max_size)
    assert clip is not None
    backend, generator = choose_backend("auto", device), torch.Generator().manual_seed(0)
    scene = Scene(config.scene.fields, config.scene.sampling, find_bounds(clip), len(clip), backend, generator)
    scene, clip = scene.to(device), clip.to(device)
    if device.type == "cuda" and (reason := fuse_encoders(scene)):
        sys.stdout.write(f"  {reason}\n")
    generator = torch.Generator(device).manual_seed(0)
    training = Training(config.scene, scene, clip, generator)
    sds, video = config.scene.sds, config.scene.video_sds
    novel, views = NovelViews(clip, scene.bounds, sds.resolution), TrainingViews(clip, scene)
    made: list[RgbdGuidance] = []
    table.row("load the finetuned prior", lambda: made.append(RgbdGuidance(run.prior, sds, device)), repeats=1)
    guidance = made[0]
    aimed = AimedViews(novel, views, sds.candidates, sds.orbit)
    images = Distillation(sds, guidance, scene, novel, aimed, training.free)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        loss().backward()
        scene.zero_grad(set_to_none=True)

    side = config.prior.resolution
    name = f"RGB-D SDS: {sds.views} view of {sds.resolution} px, prior at {side} px"
    table.row(name, lambda: step(lambda: images.loss(0.6, generator)[0]))
    painter = RgbdPainter(guidance, config.scene.refinement)
    width, height = fitted_to_prior(clip.cameras.width, clip.cameras.height, painter.resolution, painter.multiple)
    rgb, depth = torch.rand((1, 3, height, width), device=device), torch.ones((1, 1, height, width), device=device)
    known = (torch.arange(width, device=device) < width / 2).float().expand_as(depth)
    name = f"a painted view of {width}x{height}, {config.scene.refinement.sampling_steps} sampling steps"
    table.row(name, lambda: painter.paint(rgb, depth, known, 0.6, generator))
    of_clips: list[VideoGuidance] = []
    adapter = config.prior.motion_adapter
    table.row("load the motion modules", lambda: of_clips.append(VideoGuidance(guidance, adapter, video)), repeats=1)
    clips = ClipViews(clip, novel, video.resolution, video.frames, video.real)
    filmed = VideoDistillation(video, of_clips[0], scene, clips, aimed.coverage, training.free)
    name = f"video SDS: {clips.frames} frames of {video.resolution} px, {video.live} live, prior at {side} px"
    table.row(name, lambda: step(lambda: filmed.loss(0, 0.6, generator)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="toy sizes, for any machine")
    small = parser.parse_args().small
    sizes = SMALL if small else Sizes()
    device = resolve_device("auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    sys.stdout.write(f"{name}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory(prefix="paper-size-") as temporary:
        root = Path(temporary)
        model, adapter = build_model(sizes, device)
        for part in ("vae", "unet", "text_encoder"):
            count = sum(p.numel() for p in getattr(model, part).parameters())
            sys.stdout.write(f"  {part}: {count / 1e6:.1f} million parameters\n")
        sys.stdout.write(f"  motion modules: {sum(p.numel() for p in adapter.parameters()) / 1e6:.1f} million\n")
        model.save(root / "model", max_shard_size="2GB")
        save_motion_adapter(adapter, root / "adapter")
        del model, adapter
        own = {"prior.model": str(root / "model"), "prior.motion_adapter": str(root / "adapter")}
        config = resolve("paper", {**own, **(SMALL_SETTINGS if small else {})})
        if small:
            config = config.model_copy(update={"scene": _toy_scene(config)})
        run = RunDir(root / "run")
        write_capture(run.capture, sizes)
        run.prior.mkdir(parents=True)
        table = Table(device)
        bench_dreambooth(run, config, table)
        bench_distillation(run, config, device, table)


def _toy_scene(config: RunConfig) -> SceneConfig:
    """The preset's scene on the grids of preset smoke."""
    toy = resolve("smoke").scene
    return config.scene.model_copy(update={"fields": toy.fields, "sampling": toy.sampling, "max_size": 96})


if __name__ == "__main__":
    main()
