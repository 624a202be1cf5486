"""Checkpoints of a scene: safetensors for numbers, JSON for the rest with the hash of the numbers.

The JSON is written last and names the sha256 of its safetensors file: a checkpoint without it, or with another hash,
is not valid. Both writes are atomic, the last two checkpoints are kept, and loading takes the newest valid one.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpdy_core.config import FieldsConfig, SamplingConfig
from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.rundir import read_json, sha256_file, write_atomic, write_json
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.fusion import fuse_encoders
from dpdy_core.scene.hashgrid import choose_backend
from dpdy_core.scene.scene import Scene

KEPT = 2
SCENE = "scene."  # prefix of the scene's parameters among the tensors
FRAMES = "frames."  # prefix of what was corrected per training frame


@dataclass(frozen=True)
class Checkpoint:
    """One moment of the optimisation."""

    step: int
    header: dict[str, Any]  # what it takes to build the scene again, and whose checkpoint it is
    tensors: dict[str, Tensor]  # on the CPU


def save_checkpoint(folder: Path, step: int, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write the checkpoint of `step`, then remove all but the last two."""
    numbers, record = _files(folder, step)
    contents = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write(partial: Path) -> None:
        save_file(contents, partial)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read

    write_atomic(numbers, write)
    write_json(record, {**header, "step": step, "sha256": sha256_file(numbers)})
    for old in _steps(folder)[KEPT:]:
        for path in reversed(_files(folder, old)):
            path.unlink(missing_ok=True)


def newest_checkpoint(
    folder: Path, identity: str | None = None, warn: Callable[[str], None] | None = None
) -> Checkpoint | None:
    """The newest checkpoint that is whole and, if `identity` is given, was made for it; None if there is none."""
    for step in _steps(folder):
        numbers, record = _files(folder, step)
        try:
            header = read_json(record)
            if identity is not None and header["identity"] != identity:
                continue
            if header["sha256"] != sha256_file(numbers):
                raise ValueError("its hash is wrong")
            return Checkpoint(step, header, load_file(numbers))
        except (OSError, KeyError, TypeError, ValueError, json.JSONDecodeError, SafetensorError) as error:
            if warn is not None:
                warn(f"the checkpoint of step {step} is damaged ({error}); an older one is used")
    return None


def scene_header(scene: Scene) -> dict[str, Any]:
    """What `build_scene` needs besides the parameters."""
    return {
        "fields": scene.config.model_dump(mode="json"),
        "sampling": scene.sampling.model_dump(mode="json"),
        "bounds": asdict(scene.bounds),
        "frames": scene.frames,
        "backend": scene.backend,
    }


def build_scene(checkpoint: Checkpoint, device: torch.device | str) -> Scene:
    """The scene of a checkpoint. Raises BadSettings if its backend cannot run here."""
    header = checkpoint.header
    device = torch.device(device)
    bounds = header["bounds"]
    scene = Scene(
        FieldsConfig.model_validate(header["fields"]),
        SamplingConfig.model_validate(header["sampling"]),
        Bounds(tuple(bounds["centre"]), bounds["radius"], bounds["near"], bounds["far"]),
        header["frames"],
        choose_backend(header["backend"], device),
        torch.Generator().manual_seed(0),
    )
    scene.load_state_dict(tensors_below(checkpoint, SCENE))
    return scene.to(device)


def load_scene(folder: Path, device: torch.device | str, fall_back: Callable[[str], None] | None = None) -> Scene:
    """The scene of the newest valid checkpoint in `folder`, ready to render, with fused kernels on CUDA.

    `fall_back` is told if the kernels have to stay unfused.
    Raises JobFailed if there is none and BadSettings if its backend cannot run on `device`.
    """
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise JobFailed(f"there is no valid checkpoint in {folder.name}/", "run the scene stage again")
    try:
        scene = build_scene(checkpoint, device).eval().requires_grad_(False)
    except BadSettings as error:
        raise BadSettings(
            f"the scene was optimised with another backend: {error.detail}",
            "render it on a machine like the one that made it, or optimise with scene.fields.backend=torch",
        ) from error
    if torch.device(device).type == "cuda" and (reason := fuse_encoders(scene)) and fall_back:
        fall_back(reason)
    return scene


def tensors_below(checkpoint: Checkpoint, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)}


def _files(folder: Path, step: int) -> tuple[Path, Path]:
    return folder / f"step_{step:07d}.safetensors", folder / f"step_{step:07d}.json"


def _steps(folder: Path) -> list[int]:
    """Steps that have a record, newest first."""
    found = (path.stem.removeprefix("step_") for path in folder.glob("step_*.json"))
    return sorted((int(text) for text in found if text.isdecimal()), reverse=True)
