"""Novel cameras that look into solid or unobserved space are turned down."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise import novel_views
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.observed_space import ObservedSpace
from dpdy_core.scene.contraction import Bounds

SIZE, FOCAL = 16, 16.0
UP = torch.tensor([0.0, 1.0, 0.0])


def cameras_at(*places: tuple[float, float, float], towards: Tensor) -> Cameras:
    centres = torch.tensor(places)
    pose = look_at(centres, centres + towards, UP)
    count = len(centres)
    return Cameras(pose, torch.full((count, 2), FOCAL), torch.full((count, 2), SIZE / 2), SIZE, SIZE)


def wall_clip() -> Clip:
    """Two cameras side by side in front of the wall z = 0, two units away."""
    cameras = cameras_at((-0.2, 0.0, 2.0), (0.2, 0.0, 2.0), towards=torch.tensor([0.0, 0.0, -1.0]))
    return Clip(
        names=["0", "1"],
        times=torch.tensor([0.0, 1.0]),
        cameras=cameras,
        images=torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),
        valid=torch.ones(2, SIZE, SIZE, dtype=torch.bool),
        depth=torch.full((2, SIZE, SIZE), 2.0),
        motion=None,
        covisible=None,
    )


def wall_space() -> ObservedSpace:
    clip = wall_clip()
    assert clip.depth is not None
    return ObservedSpace(clip.cameras, clip.depth, clip.motion)


def share(x: float, y: float, z: float, towards: float = -1.0) -> float:
    camera = cameras_at((x, y, z), towards=torch.tensor([0.0, 0.0, towards]))
    return float(wall_space().share(camera)[0])


def test_the_share_is_that_of_the_filmed_wall() -> None:
    assert share(0.0, 0.0, 2.0) == 1.0  # what was filmed, from between the cameras
    assert share(1.2, 0.0, 2.0) == 0.5  # the wall was filmed up to x = 1.2: half of a view of width 2
    assert share(0.0, 0.0, 4.0) < 0.5  # from twice as far the wall's piece is small
    assert share(0.0, 0.0, 2.0, towards=1.0) == 0.0  # away from it
    assert share(0.0, 0.0, -2.0, towards=1.0) == 0.0  # from behind it
    assert share(0.0, 0.0, -2.0) == 0.0


def test_a_back_side_before_a_filmed_surface_hides_it() -> None:
    """Inside a box whose walls were filmed from outside, the far wall's front is seen only through the near back."""
    space = wall_space()
    nearer = space.points + torch.tensor([0.0, 0.0, 1.0])
    space.points = torch.cat([space.points, nearer])
    space.towards = torch.cat([space.towards, -space.towards])
    camera = cameras_at((0.0, 0.0, 2.0), towards=torch.tensor([0.0, 0.0, -1.0]))
    assert float(space.share(camera)[0]) < 0.2


def test_draws_avoid_what_was_not_filmed(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, bounds = wall_clip(), Bounds((0.0, 0.0, 0.0), 1.0, 0.5, 5.0)
    monkeypatch.setattr(novel_views, "SPREAD", (2.0, 2.0))  # most cameras are far off
    chosen = NovelViews(clip, bounds, SIZE)
    assert chosen.observed is not None
    blind = NovelViews(replace(clip, depth=None), bounds, SIZE)
    shares = [
        chosen.observed.share(views.draw(200, 0.5, torch.Generator().manual_seed(0))[0]) for views in (chosen, blind)
    ]
    good = [float((s >= novel_views.LEAST_OBSERVED).float().mean()) for s in shares]
    assert good[1] < 0.6
    assert good[0] > 1 - 1.5 * (1 - good[1]) ** novel_views.TRIES - 0.05
    first, again = (chosen.draw(5, 0.5, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first[0].camera_to_world, again[0].camera_to_world)
    assert torch.equal(first[1], again[1])
