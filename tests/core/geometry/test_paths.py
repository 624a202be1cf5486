"""Trajectories: closed forms on simple rigs, and what must hold for any."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.geometry.paths import (
    as_filmed,
    bullet_time,
    central_camera,
    focus_point,
    orbit,
    stabilised,
    swing,
    up_direction,
)

UP = torch.tensor([0.0, 1.0, 0.0])


def rig(poses: torch.Tensor) -> Cameras:
    count = len(poses)
    return Cameras(poses, torch.full((count, 2), 50.0), torch.tensor([[32.0, 24.0]]).repeat(count, 1), 64, 48)


def arc(
    degrees: float, count: int = 11, radius: float = 3.0, focus: tuple[float, float, float] = (1.0, 0.5, -2.0)
) -> Cameras:
    """Cameras on a horizontal arc that all look at `focus`."""
    target = torch.tensor(focus)
    angles = torch.linspace(-math.radians(degrees) / 2, math.radians(degrees) / 2, count)
    offsets = torch.stack([angles.sin(), torch.zeros(count), angles.cos()], dim=-1)
    return rig(look_at(target + radius * offsets, target, UP))


def azimuths(cameras: Cameras, focus: torch.Tensor) -> torch.Tensor:
    arm = cameras.centres.double() - focus
    return torch.rad2deg(torch.atan2(arm[:, 0], arm[:, 2]))


def test_the_focus_of_converging_axes_is_where_they_meet() -> None:
    cameras = arc(30)
    assert focus_point(cameras, 5, 3.0).tolist() == pytest.approx([1.0, 0.5, -2.0], abs=1e-4)
    assert focus_point(cameras, 5, 2.5).tolist() == pytest.approx([1.0, 0.5, -2.0], abs=0.15)


def test_a_camera_that_only_turns_or_shifts_focuses_at_the_scenes_depth() -> None:
    shifting = rig(torch.cat([torch.eye(3).expand(5, 3, 3), torch.arange(5.0)[:, None, None] * UP[:, None]], dim=-1))
    assert focus_point(shifting, 2, 4.0).tolist() == pytest.approx([0, 2.0, -4.0], abs=1e-6)
    directions = torch.tensor([[math.sin(a), 0.0, -math.cos(a)] for a in (-0.3, 0.0, 0.3)])
    turning = rig(look_at(torch.zeros(3, 3), directions, UP))
    assert focus_point(turning, 1, 4.0).tolist() == pytest.approx([0, 0, -4.0], abs=1e-6)


def test_the_central_camera_is_the_middle_of_an_arc_and_no_outlier() -> None:
    assert central_camera(arc(40), 3.0) == 5
    poses = arc(40).camera_to_world.clone()
    poses[5, :, 3] += 10
    assert central_camera(rig(poses), 3.0) in (4, 6)


def test_up_is_found_under_pitch_and_stays_sensible_without_turning() -> None:
    pitched = rig(look_at(arc(60).centres + torch.tensor([0.0, 1.5, 0.0]), torch.tensor([1.0, 0.5, -2.0]), UP))
    assert up_direction(pitched).tolist() == pytest.approx([0, 1, 0], abs=0.15)
    one = arc(0, count=1)
    assert up_direction(one).tolist() == pytest.approx(one.camera_to_world[0, :, 1].tolist(), abs=1e-6)


def test_stabilised_stands_still_while_time_plays() -> None:
    cameras = arc(20)
    path = stabilised(cameras, 3.0, 7, 10.0)
    assert torch.equal(path.cameras.camera_to_world, cameras.camera_to_world[5].expand(7, 3, 4))
    assert path.times.tolist() == pytest.approx([i / 6 for i in range(7)])
    assert stabilised(cameras, 3.0, 1, 10.0).times.tolist() == [0.5]


def test_bullet_time_freezes_the_middle_and_starts_at_its_camera() -> None:
    cameras = arc(20)
    path = bullet_time(cameras, torch.linspace(0, 1, 11), 3.0, 24, 12.0)
    assert set(path.times.tolist()) == {0.5}
    assert torch.allclose(path.cameras.camera_to_world[0], cameras.camera_to_world[5], atol=1e-6)
    assert (path.fps, len(path)) == (12.0, 24)


def test_orbit_moves_both() -> None:
    path = orbit(arc(20), 3.0, 24, 12.0)
    assert path.times[0] == 0
    assert path.times[-1] == 1
    assert (path.cameras.centres[1:] - path.cameras.centres[:-1]).norm(dim=-1).max() > 0.1


@pytest.mark.parametrize(("degrees", "reach"), [(20, 15.5), (60, 38.0), (0, 6.0)])
def test_the_swing_covers_the_filmed_arc_and_a_little_more(degrees: float, reach: float) -> None:
    cameras = arc(degrees)
    focus = focus_point(cameras, 5, 3.0)
    swung = azimuths(swing(cameras, 5, 3.0, 48), focus)
    assert swung.max().item() == pytest.approx(reach, abs=1.5)
    assert swung.min().item() == pytest.approx(-reach, abs=1.5)


@given(st.integers(0, 1000), st.floats(0.5, 20.0))
@settings(max_examples=25, deadline=None)
def test_the_swing_of_any_rig_is_smooth_rigid_and_looks_at_the_focus(seed: int, depth: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, 3, generator=generator)
    cameras = rig(look_at(centres, torch.randn(6, 3, generator=generator) * 3, UP))
    path = swing(cameras, 2, depth, 40)
    focus = focus_point(cameras, 2, depth)
    assert torch.allclose(path.camera_to_world[0], cameras.camera_to_world[2], atol=1e-5)
    rotations = path.camera_to_world[:, :, :3].double()
    assert torch.allclose(rotations.mT @ rotations, torch.eye(3).double().expand(40, 3, 3), atol=1e-5)
    distances = (path.centres.double() - focus).norm(dim=-1)
    assert torch.allclose(distances, distances[:1].expand(40), rtol=1e-4)
    pixels, z = path.project(focus.float().expand(40, 3), torch.arange(40))
    assert (z > 0).all()
    assert torch.allclose(pixels, torch.tensor([32.0, 24.0]).expand(40, 2), atol=0.05)
    steps = (path.centres.roll(-1, 0) - path.centres).norm(dim=-1)
    assert steps.max() < 0.2 * distances[0]


def test_looking_straight_down_swings_too() -> None:
    x = torch.linspace(-0.5, 0.5, 5)
    centres = torch.stack([x, torch.full((5,), 4.0), torch.zeros(5)], dim=-1)
    down = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns right, up, back: back is +y
    rotation = torch.stack([torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, -1.0]), torch.tensor([0, 1.0, 0])], dim=-1)
    assert torch.linalg.det(down).abs() == 1
    path = swing(rig(torch.cat([rotation.expand(5, 3, 3), centres[:, :, None]], dim=-1)), 2, 4.0, 16)
    assert torch.isfinite(path.camera_to_world).all()
    assert (path.centres[:, 0].max() - path.centres[:, 0].min()) > 0.5


def test_as_filmed_is_the_cameras_themselves() -> None:
    cameras, times = arc(10), torch.linspace(0, 1, 11)
    path = as_filmed(cameras, times, 30.0)
    assert path.cameras is cameras
    assert path.times is times
    assert path.resized(32, 24).cameras.width == 32
