from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.render.coverage import Coverage, opened
from dpdy_core.render.visibility import TrainingViews

AHEAD = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def cameras(xs: list[float], size: int = 24) -> Cameras:
    """Cameras side by side that look along -z; a pixel is 1 / `size` of the depth wide."""
    poses = torch.stack([torch.cat([AHEAD, torch.tensor([[x], [0.0], [0.0]])], dim=1) for x in xs])
    return Cameras(poses, torch.full((len(xs), 2), float(size)), torch.full((len(xs), 2), size / 2), size, size)


def frames(depth: Tensor, moving: Tensor | None = None) -> TrainingViews:
    """Two frames from one place, at times 0 and 1."""
    views = SimpleNamespace(
        depth=depth, cameras=cameras([0.0, 0.0]), times=torch.tensor([0.0, 1.0]), spacing=1.0, moving=moving
    )
    return cast(TrainingViews, views)


def test_a_wall_covers_the_view_but_for_what_lies_beside_it() -> None:
    """At depth 2 a step of 0.5 to the right moves the wall by 6 of 24 pixels to the left."""
    coverage = Coverage(frames(torch.full((2, 24, 24), 2.0)), 24)
    want = torch.zeros(2, 24, 24)
    want[1, :, 18:] = 1
    assert torch.equal(coverage.unseen(cameras([0.0, 0.5]), torch.zeros(2)), want)


def test_pixels_without_depth_cover_nothing() -> None:
    depth = torch.full((2, 24, 24), 2.0)
    depth[:, 6:12, 4:10] = 0
    unseen = Coverage(frames(depth), 24).unseen(cameras([0.0]), torch.zeros(1))[0]
    assert torch.equal(unseen, (depth[0] == 0).float())


def test_movers_cover_at_their_own_time_alone() -> None:
    moving = torch.zeros(2, 24, 24, dtype=torch.bool)
    moving[:, 6:12, 4:10] = True
    depth = torch.full((2, 24, 24), 2.0)
    depth[1] = torch.where(moving[1], 0.0, 2.0)
    coverage = Coverage(frames(depth, moving), 24)
    want = torch.stack([torch.zeros(24, 24), moving[0].float()])
    assert torch.equal(coverage.unseen(cameras([0.0, 0.0]), torch.tensor([0.0, 1.0])), want)


def test_points_behind_the_camera_do_not_count() -> None:
    coverage = Coverage(frames(torch.full((2, 24, 24), 2.0)), 24)
    ahead = cameras([0.0])
    ahead.camera_to_world[:, 2, 3] = -3.0
    assert coverage.unseen(ahead, torch.zeros(1)).eq(1).all()


def test_large_frames_are_thinned_and_still_leave_no_hole() -> None:
    views = frames(torch.full((2, 24, 24), 2.0))
    coarse = Coverage(views, 8)
    assert len(coarse.points.positions) == 2 * 12 * 12
    assert coarse.unseen(cameras([0.0], 8), torch.zeros(1)).eq(0).all()


def test_opening_removes_lines_and_keeps_areas() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 2] = 1
    mask[..., 4:8, 5:9] = 1
    want = torch.zeros(1, 1, 9, 9)
    want[..., 4:8, 5:9] = 1
    assert torch.equal(opened(mask, 3), want)
