"""A scene that is known in closed form: a chequered wall and a ball that flies past it."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import write_transforms
from dpdy_core.render.renderer import Rendering
from dpdy_core.rundir import RunDir

WALL, BALL_DEPTH, RADIUS = 4.0, 2.5, 0.4
WIDTH, HEIGHT, FOCAL, FRAMES = 48, 36, 40.0, 6


class AnalyticScene(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))


def render_analytic(
    _scene: nn.Module, cameras: Cameras, index: int, time: float, _chunk: int, check: Callable[[], None] | None = None
) -> Rendering:
    """The true picture, with `render_camera`'s signature."""
    if check is not None:
        check()
    origins, directions = (r.double() for r in cameras.image_rays(index))
    ball = origins.new_tensor([-0.8 + 1.6 * time, 0.0, -BALL_DEPTH])
    a = (directions**2).sum(-1)
    b = ((origins - ball) * directions).sum(-1)
    c = ((origins - ball) ** 2).sum(-1) - RADIUS**2
    root = b**2 - a * c
    on_ball = root > 0
    wall = (-WALL - origins[..., 2]) / directions[..., 2]
    depth = torch.where(on_ball, (-b - root.clamp(min=0).sqrt()) / a, wall)
    points = origins + depth[..., None] * directions
    chequer = ((torch.floor(2 * points[..., 0]) + torch.floor(2 * points[..., 1])) % 2)[..., None]
    wall_colour = chequer * points.new_tensor([0.8, 0.6, 0.4]) + (1 - chequer) * points.new_tensor([0.2, 0.4, 0.6])
    colour = torch.where(on_ball[..., None], points.new_tensor([1.0, 0.2, 0.0]), wall_colour)
    return Rendering(colour.float(), depth.float(), torch.ones_like(depth).float(), on_ball.float())


def make_camera(x: float, y: float = 0.0) -> list[list[float]]:
    return [[1.0, 0, 0, x], [0, 1.0, 0, y], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]


def write_capture(run: RunDir, test_frames: int) -> None:
    """Training camera moves along x; test cameras stand above it and look past the right edge of what was seen."""
    shots = [("train", i, make_camera(-0.2 + 0.4 * i / (FRAMES - 1)), i / (FRAMES - 1)) for i in range(FRAMES)]
    shots += [("test", i, make_camera(0.9, 0.1), i / max(test_frames - 1, 1)) for i in range(test_frames)]
    document = {"camera_model": "OPENCV", "w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "fps": 12.0}
    document |= {
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
        "k1": 0,
        "k2": 0,
        "p1": 0,
        "p2": 0,
        "depth_unit_scale_factor": 0.001,
    }
    document |= {
        f"{split}_filenames": [f"images/{s}_{i}.png" for s, i, _, _ in shots if s == split]
        for split in ("train", "val", "test")
    }
    frames = []
    for split, i, matrix, time in shots:
        camera = Cameras(
            torch.tensor([matrix])[:, :3],
            torch.full((1, 2), FOCAL),
            torch.tensor([[WIDTH / 2, HEIGHT / 2]]),
            WIDTH,
            HEIGHT,
        )
        truth = render_analytic(AnalyticScene(), camera, 0, time, 1)
        name = f"{split}_{i}.png"
        save(run.capture / "images" / name, (truth.colour * 255).round().numpy()[..., ::-1].astype(np.uint8))
        save(run.capture / "depth" / name, (truth.depth * 1000).round().numpy().astype(np.uint16))
        save(run.capture / "motion_masks" / name, (truth.dynamic * 255).numpy().astype(np.uint8))
        frame = {"file_path": f"images/{name}", "time": time, "transform_matrix": matrix}
        frame |= {"depth_file_path": f"depth/{name}", "motion_mask_path": f"motion_masks/{name}"}
        frames.append(frame)
    write_transforms(run.capture, {**document, "frames": frames})


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
