"""Motion modules in AnimateDiff's layout: temporal attention that turns the image UNet into a video UNet."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.prior import ldm3d
from dpdy_core.prior.hub import hub_folder

FOLDER = "motion_adapter"  # of a model that has its own
SCHEDULE = "scheduler_config.json"  # beside an adapter's weights: the noise schedule it was trained with
ANIMATEDIFF = "guoyww/animatediff-motion-adapter-v1-5-2"
_MARKS = ("config.json", f"{FOLDER}/config.json")
_PATTERNS = [
    *_MARKS,
    SCHEDULE,
    f"{FOLDER}/{SCHEDULE}",
    *(f"{f}diffusion_pytorch_model.safetensors" for f in ("", f"{FOLDER}/")),
]


def build_motion_adapter(unet: UNet2DConditionModel | dict[str, Any], frames: int = 16, seed: int = 0) -> MotionAdapter:
    """An untrained adapter for `unet` (or its config) and clips of up to `frames` frames; equal seeds, equal weights.

    One module after every resnet of the down and up blocks, none in the middle block, with the heads of the spatial
    attention. Its output projections are zero, so that it starts as no change (AnimateDiff, section 4.2).
    """
    config = unet if isinstance(unet, dict) else unet.config
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter = MotionAdapter(
            block_out_channels=tuple(config["block_out_channels"]),
            motion_layers_per_block=config["layers_per_block"],
            motion_num_attention_heads=heads if isinstance(heads, int) else tuple(heads),
            motion_norm_num_groups=config["norm_num_groups"],
            motion_max_seq_length=frames,
            use_motion_mid_block=False,
        )
    for block in (*adapter.down_blocks, *adapter.up_blocks):
        for module in block.motion_modules:
            torch.nn.init.zeros_(module.proj_out.weight)
            torch.nn.init.zeros_(module.proj_out.bias)
    return adapter


def motion_unet(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """The video UNet made of `unet` (finetuning merged) and `adapter`, whose weights it shares.

    Of a UNet that completes pictures it is the part that sees none.

    It maps clips (B, C, F, H, W), timesteps (B,) and text states (B * F, L, D), each row repeated for every frame, to
    (B, C, F, H, W). `adapter` takes the type and device of `unet`. Raises BadSettings if the two don't fit.
    """
    torch.nn.Module.to(adapter, device=unet.device, dtype=unet.dtype)  # diffusers' own `to` warns of every type
    if list(unet.config.block_out_channels) != list(adapter.config.block_out_channels):
        raise BadSettings(
            f"the motion adapter is made for channels {list(adapter.config.block_out_channels)}, but the prior's UNet"
            f" has {list(unet.config.block_out_channels)}",
            "set prior.motion_adapter to an adapter for this prior",
        )
    try:
        with torch.device("meta"):
            video = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    except ValueError as error:
        raise BadSettings(f"the motion adapter does not fit the prior: {error}", "set prior.motion_adapter") from error
    video.conv_in = latents_alone(unet)
    video.register_to_config(in_channels=unet.config.out_channels)
    for name in ("time_proj", "time_embedding", "conv_norm_out", "conv_act", "conv_out"):
        setattr(video, name, getattr(unet, name))
    blocks = [(video.mid_block, unet.mid_block, adapter.mid_block)]
    blocks += zip(video.down_blocks, unet.down_blocks, adapter.down_blocks, strict=True)
    blocks += zip(video.up_blocks, unet.up_blocks, adapter.up_blocks, strict=True)
    for block, image, motion in blocks:
        for name in ("resnets", "attentions", "downsamplers", "upsamplers"):
            if hasattr(block, name):
                setattr(block, name, getattr(image, name))
        if hasattr(block, "motion_modules"):
            block.motion_modules = motion.motion_modules
    return video.train(unet.training)


def latents_alone(unet: UNet2DConditionModel) -> torch.nn.Conv2d:
    """The first layer of `unet` for latents without a picture to complete, whose channels would be 0."""
    whole, latents = unet.conv_in, unet.config.out_channels
    if whole.in_channels == latents:
        return whole
    with torch.device("meta"):
        narrow = torch.nn.Conv2d(latents, whole.out_channels, whole.kernel_size, padding=whole.padding)
    narrow.weight = torch.nn.Parameter(whole.weight.detach()[:, :latents].contiguous(), requires_grad=False)
    narrow.bias = whole.bias
    return narrow


def predict_clip(video: UNetMotionModel, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
    """The raw prediction in float32 for clips `noisy`, both (B, F, C, h, w), `timesteps` (B,) and `text` (B, L, D)."""
    frames = noisy.shape[1]
    states = text.repeat_interleave(frames, dim=0)
    return video(noisy.transpose(1, 2), timesteps, encoder_hidden_states=states).sample.transpose(1, 2).float()


def save_motion_adapter(adapter: MotionAdapter, folder: Path) -> None:
    """Write `adapter` in diffusers' layout, as safetensors in its parameters' own type."""
    adapter.save_pretrained(folder, max_shard_size="14MB")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes them private to the user


def load_motion_adapter(name: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> MotionAdapter:
    """The frozen adapter in `name`: `dpdy-tiny`, an adapter's folder, a model's folder that has one, or a hub id.

    Raises JobFailed if there is none or it can't be loaded, BadSettings if the name can't be one.
    """
    folder = find_motion_adapter(name)
    try:
        adapter = MotionAdapter.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise JobFailed(f"the motion adapter {name!r} cannot be loaded: {error}", _how_to_get(name)) from error
    return adapter.to(device).eval().requires_grad_(False)


def find_motion_adapter(name: str) -> Path:
    """The folder that holds the adapter `name` (see `load_motion_adapter`)."""
    folder = ldm3d.BUNDLED_FOLDER if name == ldm3d.BUNDLED else Path(name).expanduser()
    if not folder.exists() and name != ldm3d.BUNDLED:
        folder = hub_folder(name, _PATTERNS, "the motion adapter", _how_to_get(name), _MARKS)
    for mark in reversed(_MARKS):
        if (folder / mark).is_file():
            return (folder / mark).parent
    raise JobFailed(f"{name} holds no motion adapter (no {FOLDER} folder)", _how_to_get(name))


def motion_schedule(name: str | None, prior: DDIMScheduler) -> DDIMScheduler:
    """The noise schedule of the adapter `name`; None is the own adapter of the model whose schedule is `prior`.

    An adapter's folder may hold it as `scheduler_config.json`. Else a model's own adapter was trained on the model's
    schedule, and an adapter from elsewhere is AnimateDiff's, trained on linear betas: those of SD and LDM3D give
    pale, flickering clips with it (diffusers docs, api/pipelines/animatediff).
    """
    if name is None:
        return prior
    folder = find_motion_adapter(name)
    if (folder / SCHEDULE).is_file():
        return DDIMScheduler.from_pretrained(folder, local_files_only=True)
    if folder.name == FOLDER:
        return prior
    linear = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}
    return DDIMScheduler.from_config(prior.config, **linear, rescale_betas_zero_snr=False, clip_sample=False)


def _how_to_get(name: str) -> str:
    if name == ldm3d.BUNDLED:
        return "train it with `python -m dpdy_core.prior.pretrain`, or set scene.video_sds.enabled=false"
    return (
        f"on a machine with network run `hf download {ANIMATEDIFF} --local-dir FOLDER` and set prior.motion_adapter to"
        " FOLDER, or set scene.video_sds.enabled=false"
    )
