"""A tiny posed clip and run folder for the optimisation tests: a textured box room, a moving ball, one moving camera.

Rendered by closed-form ray casting: independent of the renderer under test.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.config import FieldsConfig, GridConfig, LossConfig, RunConfig, SamplingConfig, SceneConfig, SdsConfig
from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.prior.finetuned import RECORD
from dpdy_core.rundir import RunDir, write_json

WIDTH, HEIGHT, FOCAL, RADIUS = 24, 18, 22.0, 0.35


def pose(k: int, count: int) -> torch.Tensor:
    angle = torch.tensor((k / max(count - 1, 1) - 0.5) * 0.9)
    centre = torch.stack([2.2 * angle.sin(), torch.tensor(0.4), 2.2 * angle.cos()])
    return look_at(centre, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))


def cast(origins: torch.Tensor, directions: torch.Tensor, time: float) -> tuple[torch.Tensor, ...]:
    """Colour (..., 3), ray parameter and motion mask (...) of what rays (..., 3) hit, in float64."""
    origins, directions = origins.double(), directions.double()
    wall = torch.where(directions[..., 2] < 0, (-1.2 - origins[..., 2]) / directions[..., 2], torch.inf)
    floor = torch.where(directions[..., 1] < 0, (-0.6 - origins[..., 1]) / directions[..., 1], torch.inf)
    depth = torch.minimum(wall, floor)
    ball = torch.tensor([time - 0.5, 0.0, 0.2], dtype=torch.float64)
    a, b = directions.square().sum(-1), (directions * (origins - ball)).sum(-1)
    root = b.square() - a * ((origins - ball).square().sum(-1) - RADIUS**2)
    hit = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, torch.inf)
    moving = hit < depth
    depth = torch.where(moving, hit, depth)
    points = origins + depth[..., None] * directions
    stripes = 0.5 + 0.3 * torch.sin(points * 3.0)
    green = torch.tensor([0.1, 0.8, 0.2], dtype=torch.float64) * (0.7 + 0.3 * (points[..., 1:2] / RADIUS))
    return torch.where(moving[..., None], green, stripes).clamp(0, 1), depth, moving


def shoot(camera: torch.Tensor, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8, planar depth (H, W) and motion mask of the scene."""
    centre_pixel = torch.tensor([[WIDTH / 2, HEIGHT / 2]])
    cameras = Cameras(camera[None], torch.full((1, 2), FOCAL), centre_pixel, WIDTH, HEIGHT)
    colour, depth, moving = cast(*cameras.image_rays(0), time)
    return (colour * 255).byte().numpy(), depth.numpy(), moving.numpy()


def tiny_config(**scene: object) -> RunConfig:
    """Settings under which a step takes a few milliseconds."""
    grid = GridConfig(levels=4, log2_table=11, base_resolution=4, max_resolution=32)
    settings: dict[str, object] = {
        "steps": 12,
        "rays": 192,
        "max_size": 24,
        "fields": FieldsConfig(static_grid=grid, dynamic_grid=grid, proposal_grid=grid, hidden=16),
        "sampling": SamplingConfig(proposal=12, fine=10),
        "losses": LossConfig(),
        "sds": SdsConfig(enabled=False),
        "preview_every": 1000,
        "refinement": {"enabled": False},
        "checkpoint_seconds": 3600.0,
    }
    return RunConfig(device="cpu", scene=SceneConfig.model_validate({**settings, **scene}))


def write_capture(root: Path, frames: int = 6, depth: bool = True, masks: bool = True) -> RunDir:
    """A run folder with a canonical capture: `frames` training frames and one test frame from elsewhere."""
    run = RunDir(root)
    entries = []
    for k in range(frames + 1):
        test = k == frames
        camera = pose(k, frames) if not test else pose(frames - 2, frames) + torch.tensor([0, 0, 0, 0.15])
        time = k / (frames - 1) if not test else 0.4
        colour, z, moving = shoot(camera, time)
        matrix = torch.cat([camera, torch.tensor([[0.0, 0.0, 0.0, 1.0]])]).tolist()
        entry = {"file_path": f"images/{k:03d}.png", "time": time, "transform_matrix": matrix}
        (run.capture / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(run.capture / entry["file_path"]), cv2.cvtColor(colour, cv2.COLOR_RGB2BGR))
        if depth:
            (run.capture / "depth").mkdir(exist_ok=True)
            entry["depth_file_path"] = f"depth/{k:03d}.png"
            cv2.imwrite(str(run.capture / entry["depth_file_path"]), (z * 1000).astype(np.uint16))
        if masks:
            (run.capture / "motion_masks").mkdir(exist_ok=True)
            entry["motion_mask_path"] = f"motion_masks/{k:03d}.png"
            cv2.imwrite(str(run.capture / entry["motion_mask_path"]), moving.astype(np.uint8) * 255)
        entries.append(entry)
    names = [entry["file_path"] for entry in entries]
    document = {
        "camera_model": "OPENCV",
        **{"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT},
        "depth_unit_scale_factor": 0.001,
        "train_filenames": names[:-1],
        "val_filenames": [],
        "test_filenames": names[-1:],
        "frames": entries,
    }
    write_json(run.transforms_file, json.loads(json.dumps(document)))
    return run


class FakeGuidance:
    """Stands for `RgbdGuidance`: pulls colours to grey, with noise from the generator as the real one has."""

    def __init__(self, prior_folder: Path, sds: SdsConfig, device: torch.device | str) -> None:
        assert (prior_folder / RECORD).exists()
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...], float]] = []
        self.act: list[Tensor | None] = []
        del sds, device

    def loss(
        self, rgb: Tensor, depth: Tensor, act: Tensor | None, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls.append((tuple(rgb.shape), tuple(depth.shape), progress))
        self.act.append(act)
        noise = torch.randn(rgb.shape, generator=generator)
        weight = 1.0 if act is None else act
        loss = (weight * (rgb - 0.5 - 0.1 * noise)).square().sum() + (weight * depth).sum() * 1e-3
        return loss, {"gradient": loss.detach()}
