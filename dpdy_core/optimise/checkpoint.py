"""What a checkpoint says of a scene, and the scene that it gives back."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dpdy_core.checkpoint import Checkpoint, newest_checkpoint, tensors_below
from dpdy_core.config import FieldsConfig, RunConfig, SamplingConfig
from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.ingest.clip import read_transforms, training_part
from dpdy_core.rundir import RunDir
from dpdy_core.scene.contraction import Bounds
from dpdy_core.scene.fusion import fuse_encoders
from dpdy_core.scene.hashgrid import choose_backend
from dpdy_core.scene.scene import Scene

SCENE = "scene."  # prefix of the scene's parameters among the tensors
FRAMES = "frames."  # prefix of what was corrected per training frame
BEFORE = {"static_planes": False, "shadows": False}  # of scenes whose headers do not know these settings


def scene_identity(run: RunDir, config: RunConfig) -> str:
    """Hash of what decides the optimisation: checkpoints made for anything else are left alone."""
    sections = [section.model_dump(mode="json") for section in (config.prior, config.scene)]
    settings = [config.seed, *sections, training_part(read_transforms(run.capture))]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def scene_header(scene: Scene) -> dict[str, Any]:
    """What `build_scene` needs besides the parameters."""
    return {
        "fields": scene.config.model_dump(mode="json"),
        "sampling": scene.sampling.model_dump(mode="json"),
        "bounds": asdict(scene.bounds),
        "frames": scene.frames,
        "backend": scene.backend,
    }


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def build_scene(checkpoint: Checkpoint, device: torch.device | str) -> Scene:
    """The scene of a checkpoint. Raises BadSettings if its backend cannot run here."""
    header = checkpoint.header
    device = torch.device(device)
    bounds = header["bounds"]
    scene = Scene(
        FieldsConfig.model_validate(BEFORE | header["fields"]),
        SamplingConfig.model_validate(header["sampling"]),
        Bounds(**{name: _tuples(value) for name, value in bounds.items()}),
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
        raise JobFailed(f"there is no valid checkpoint of this version in {folder.name}/", "run the scene stage again")
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
