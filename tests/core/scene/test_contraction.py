"""The contraction and the bounds of a scene."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.ingest.clip import Clip
from dpdy_core.scene.contraction import ASSUMED_DISTANCE, contract, find_bounds, uncontract, unit_cube

COORDINATE = st.floats(-50, 50, allow_nan=False)


@settings(deadline=None)
@given(st.tuples(COORDINATE, COORDINATE, COORDINATE))
def test_uncontract_inverts_contract(xyz: tuple[float, float, float]) -> None:
    point = torch.tensor(xyz, dtype=torch.float64)
    torch.testing.assert_close(uncontract(contract(point)), point, atol=1e-6, rtol=1e-6)


@settings(deadline=None)
@given(st.tuples(COORDINATE, COORDINATE, COORDINATE))
def test_contracted_space_is_the_ball_of_radius_two(xyz: tuple[float, float, float]) -> None:
    assert float(contract(torch.tensor(xyz, dtype=torch.float64)).norm()) < 2


def test_the_unit_ball_stays_as_it_is() -> None:
    points = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=-1) * 0.9
    assert torch.equal(contract(points), points)


def test_value_and_slope_are_continuous_at_the_unit_sphere() -> None:
    direction = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    step = 1e-6
    inside, at, outside = (contract(direction * (1 + d)) for d in (-step, 0.0, step))
    torch.testing.assert_close((at - inside) / step, (outside - at) / step, atol=1e-4, rtol=0)


def test_unit_cube_maps_the_centre_to_the_middle_and_infinity_to_the_wall() -> None:
    centre = torch.tensor([1.0, 2.0, 3.0])
    points = torch.tensor([[1.0, 2.0, 3.0], [1e9, 2.0, 3.0], [5.0, 2.0, 3.0]])
    expected = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.5, 0.5], [0.75, 0.5, 0.5]])
    torch.testing.assert_close(unit_cube(points, centre, torch.eye(3), radius=4.0), expected)


def test_a_sky_keeps_its_directions_and_gets_gradients() -> None:
    """Far away, a degree is still a degree: the sky lies on a shell, as wide as directions are apart."""
    angle = torch.deg2rad(torch.arange(0, 90, 1.0, dtype=torch.float64))
    sky = 1e4 * torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
    sky.requires_grad_()
    cube = unit_cube(sky, torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), radius=1.0)
    steps = (cube[1:] - cube[:-1]).norm(dim=-1)
    torch.testing.assert_close(
        steps, torch.full_like(steps, float(torch.deg2rad(torch.tensor(1.0))) / 2), rtol=1e-3, atol=0
    )
    cube.sum().backward()
    assert sky.grad is not None
    assert torch.isfinite(sky.grad).all()


def clip_looking_at(target: torch.Tensor, distance: float, depth: float | None, travel: float) -> Clip:
    """Cameras on a line, all looking at `target`; a wall at planar `depth` if given."""
    offsets = torch.linspace(-travel, travel, 4)
    centres = target + torch.stack([offsets, torch.zeros(4), torch.full((4,), distance)], dim=-1)
    pose = look_at(centres, target.expand(4, 3), torch.tensor([0.0, 1.0, 0.0]))
    cameras = Cameras(pose, torch.full((4, 2), 30.0), torch.full((4, 2), 16.0), 32, 32)
    return Clip(
        names=[str(k) for k in range(4)],
        times=torch.linspace(0, 1, 4),
        cameras=cameras,
        images=torch.zeros(4, 32, 32, 3, dtype=torch.uint8),
        valid=torch.ones(4, 32, 32, dtype=torch.bool),
        depth=None if depth is None else torch.full((4, 32, 32), depth),
        motion=None,
        covisible=None,
    )


def test_bounds_from_depth_hold_what_the_cameras_see() -> None:
    target = torch.tensor([2.0, -1.0, 5.0])
    bounds = find_bounds(clip_looking_at(target, distance=3.0, depth=3.0, travel=0.2))
    torch.testing.assert_close(torch.tensor(bounds.centre), target, atol=0.2, rtol=0)
    assert 0.5 < bounds.radius < 3
    assert bounds.near < 3.0 < bounds.far


def test_bounds_without_depth_come_from_the_optical_axes() -> None:
    target = torch.tensor([2.0, -1.0, 5.0])
    bounds = find_bounds(clip_looking_at(target, distance=3.0, depth=None, travel=1.0))
    torch.testing.assert_close(torch.tensor(bounds.centre), target, atol=0.3, rtol=0)
    assert bounds.near < 3.0 < bounds.far


def test_bounds_scale_with_the_scene() -> None:
    small = find_bounds(clip_looking_at(torch.zeros(3), 3.0, 3.0, 0.2))
    large = find_bounds(clip_looking_at(torch.zeros(3), 300.0, 300.0, 20.0))
    for name in ("radius", "near", "far"):
        assert getattr(large, name) == pytest.approx(100 * getattr(small, name), rel=1e-3)


def test_a_still_camera_without_depth_gets_an_assumed_distance() -> None:
    clip = clip_looking_at(torch.zeros(3), 3.0, None, 0.0)
    bounds = find_bounds(clip)
    pose = clip.cameras.camera_to_world[0]
    ahead = torch.tensor(bounds.centre) - pose[:, 3]
    torch.testing.assert_close(ahead, -ASSUMED_DISTANCE * pose[:, 2], atol=1e-5, rtol=0)
    assert bounds.near < ASSUMED_DISTANCE < bounds.far


def test_without_depth_the_capture_may_tell_how_far_things_are() -> None:
    clip = clip_looking_at(torch.zeros(3), distance=3.0, depth=None, travel=1.0)
    plain, told = find_bounds(clip), find_bounds(replace(clip, depth_range=(2.0, 7.0)))
    assert (told.near, told.far) == (1.0, 14.0)
    assert (told.centre, told.radius) == (plain.centre, plain.radius)
