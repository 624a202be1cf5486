"""Axes against rooms that are turned by a known rotation."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.ingest.clip import Clip
from dpdy_core.scene.axes import find_axes, surface_normals
from dpdy_core.scene.contraction import find_bounds, unit_cube

SIZE = 48


def rotation(seed: int) -> Tensor:
    q: Tensor = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return q if float(torch.linalg.det(q)) > 0 else -q


def room_clip(turn: Tensor) -> Clip:
    """Four views into the corner x = -1, y = -1, z = -1 of a room of plain walls, the whole world turned by `turn`."""
    centres = torch.tensor([[1.0, 1.2, 1.1], [1.3, 0.9, 1.0], [0.8, 1.1, 1.4], [1.0, 1.0, 1.0]], dtype=torch.float64)
    target, up = torch.tensor([-0.8, -0.9, -0.7], dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0]).double()
    pose = look_at(centres, target.expand(4, 3), up)
    cameras = Cameras(pose, torch.full((4, 2), 60.0).double(), torch.full((4, 2), SIZE / 2).double(), SIZE, SIZE)
    origins, directions = zip(*map(cameras.image_rays, range(4)), strict=True)
    depth = ((-1 - torch.stack(origins)) / torch.stack(directions)).clamp_min(0).nan_to_num(1e9)
    depth = torch.where(depth > 0, depth, 1e9).amin(dim=-1)
    turned = torch.cat([turn @ pose[:, :, :3], (turn @ pose[:, :, 3:])], dim=-1)
    return Clip(
        names=[str(k) for k in range(4)],
        times=torch.linspace(0, 1, 4),
        cameras=replace(
            cameras, camera_to_world=turned.float(), focal=cameras.focal.float(), principal=cameras.principal.float()
        ),
        images=torch.zeros(4, SIZE, SIZE, 3, dtype=torch.uint8),
        valid=torch.ones(4, SIZE, SIZE, dtype=torch.bool),
        depth=depth.float(),
        motion=None,
        covisible=None,
    )


def askew(first: Tensor, second: Tensor) -> float:
    """Degrees between two sets of axes in any order, either way round."""
    alike = (first.double() @ second.double().T).abs().amax(dim=1)
    return float(torch.rad2deg(torch.arccos(alike.clamp(max=1))).max())


@pytest.mark.parametrize("seed", range(8))
def test_a_turned_room_is_found(seed: int) -> None:
    turn = rotation(seed)
    axes = find_axes(surface_normals(room_clip(turn)))
    assert askew(axes, turn.T) < 0.5
    torch.testing.assert_close(axes @ axes.T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(axes)) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_clutter_does_not_turn_the_axes(seed: int) -> None:
    """A third of the normals point anywhere, a third of the rest lies 25 degrees off one axis, all to one side."""
    dice, turn = torch.Generator().manual_seed(seed), rotation(seed)
    which = torch.randint(3, (4000,), generator=dice)
    normals = torch.eye(3, dtype=torch.float64)[which] * (torch.randint(2, (4000, 1), generator=dice) * 2 - 1)
    normals += 0.03 * torch.randn(4000, 3, generator=dice, dtype=torch.float64)
    normals[:1300] = torch.randn(1300, 3, generator=dice, dtype=torch.float64)
    normals[1300:2200] = torch.tensor([0.906, 0.423, 0.0], dtype=torch.float64)
    normals = torch.nn.functional.normalize(normals, dim=-1) @ turn.T
    assert askew(find_axes(normals), turn.T) < 2


def test_aligned_rooms_keep_the_worlds_axes_in_their_order() -> None:
    axes = find_axes(surface_normals(room_clip(torch.eye(3, dtype=torch.float64))))
    torch.testing.assert_close(axes, torch.eye(3, dtype=torch.float64), atol=0.01, rtol=0)


def test_one_wall_decides_one_axis_and_no_depth_none() -> None:
    own = torch.eye(3, dtype=torch.float64)
    wall = torch.nn.functional.normalize(torch.tensor([[0.1, 0.0, 1.0]], dtype=torch.float64), dim=-1)
    axes = find_axes(wall.expand(500, 3))
    assert float((axes @ wall[0]).abs().max()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(axes[1], own[1], atol=1e-2, rtol=0)
    clip = room_clip(rotation(0))
    assert torch.equal(find_axes(surface_normals(replace(clip, depth=None))), own)
    assert torch.equal(find_axes(surface_normals(replace(clip, depth=torch.zeros_like(clip.depth)))), own)


def test_what_moves_and_where_depth_jumps_has_no_say() -> None:
    clip = room_clip(rotation(1))
    assert clip.depth is not None
    assert len(surface_normals(clip)) > 1000
    assert len(surface_normals(replace(clip, motion=torch.ones_like(clip.valid)))) == 0
    checkers = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 1.0 + 1
    assert len(surface_normals(replace(clip, depth=checkers.expand(4, SIZE, SIZE)))) == 0


def test_the_grids_lie_in_a_turned_world_as_they_did() -> None:
    """The same places get the same coordinates, but for the order and the sign of the axes."""
    turn = rotation(3).float()
    plain, turned = (torch.tensor(find_bounds(room_clip(r)).axes) for r in (torch.eye(3).double(), turn.double()))
    points, centre = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.5, -0.3])
    first = unit_cube(points, centre, plain, 1.0) - 0.5
    second = unit_cube(points @ turn.T, turn @ centre, turned, 1.0) - 0.5
    apart = (first.abs()[:, :, None] - second.abs()[:, None, :]).amax(dim=0)
    assert sorted(apart.argmin(dim=1).tolist()) == [0, 1, 2]
    assert float(apart.amin(dim=1).max()) < 0.01
