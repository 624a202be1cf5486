"""Points carried through a scene that is known in closed form: a wall that stands, a ball that flies past it."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from analytic_scene import AnalyticScene, make_camera, render_analytic
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.output.keypoints import Keypoints, carried, read_keypoints
from dpdy_core.render.renderer import Rendering

FRAMES, WIDTH, HEIGHT, FOCAL = 25, 160, 120, 130.0
ANNOTATED = [0, 8, 16, 24]
WALL = torch.tensor([[-1.0, 0.9, -4.0], [0.7, 0.8, -4.0], [0.3, -0.9, -4.0]])
BALL = torch.tensor([[0.0, 0.0, 0.4], [0.1, -0.15, 0.3571]])  # from its middle
TIMES = [i / (FRAMES - 1) for i in range(FRAMES)]
CAMERAS = Cameras(
    torch.tensor([make_camera(-0.2 + 0.4 * time) for time in TIMES])[:, :3],
    torch.full((FRAMES, 2), FOCAL),
    torch.tensor([[WIDTH / 2, HEIGHT / 2]]).repeat(FRAMES, 1),
    WIDTH,
    HEIGHT,
)


def middle(time: float) -> Tensor:
    return torch.tensor([-0.8 + 1.6 * time, 0.0, -2.5])


@cache
def render(index: int, time: float) -> Rendering:
    """The analytic scene, its ball patterned: flow sees nothing of a plain one."""
    plain = render_analytic(AnalyticScene(), CAMERAS, index, time, 1)
    origins, directions = CAMERAS.image_rays(index)
    x, y = (origins + plain.depth[..., None] * directions - middle(time))[..., :2].unbind(-1)
    pattern = (0.5 + 0.5 * torch.sin(25 * (x + y)) * torch.cos(25 * (x - y)))[..., None]
    ball = pattern * torch.tensor([1.0, 0.5, 0.2])
    return replace(plain, colour=torch.where(plain.dynamic[..., None] > 0.5, ball, plain.colour))


def standing(index: int, _time: float) -> Rendering:
    """A scene that never learned to move."""
    return render(index, 0.0)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """(4, 5, 2) three points of the wall, two of the ball."""
    return torch.stack(
        [CAMERAS.project_all(torch.cat([WALL, middle(TIMES[i]) + BALL]))[0][i] for i in ANNOTATED]
    ).double()


def test_points_are_carried_to_every_other_frame(pixels: Tensor) -> None:
    found = carried(pixels, ANNOTATED, CAMERAS, TIMES, render)
    error = (found - pixels).norm(dim=-1)
    assert error[..., :3].max() < 1e-3, "geometry alone"
    assert error[..., 3:].max() < 2.5, "pixels of drift in 24 steps, in which the ball moves 83"
    assert torch.equal(found.diagonal().permute(2, 0, 1), pixels)


def test_a_scene_that_does_not_move_loses_what_moves(pixels: Tensor) -> None:
    seen = torch.ones(4, 5, dtype=torch.bool)
    found = Keypoints(ANNOTATED, pixels, seen, 4).score(CAMERAS, torch.tensor(TIMES), standing)
    assert found == pytest.approx(3 / 5), "of the five points three stand"
    seen[:, 3:] = False
    assert Keypoints(ANNOTATED, pixels, seen, 4).score(CAMERAS, torch.tensor(TIMES), standing) == 1


def test_one_frame_makes_no_pair(pixels: Tensor) -> None:
    alone = Keypoints([3], pixels[:1], torch.ones(1, 5, dtype=torch.bool), 10)
    assert alone.score(CAMERAS, torch.tensor(TIMES), render) is None


def test_a_capture_without_keypoints_has_none(tmp_path: Path) -> None:
    assert read_keypoints(tmp_path, None) is None  # type: ignore[arg-type]
