"""Cameras against float64 numpy references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.geometry.cameras import Cameras, look_at, pixel_centres


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def random_cameras(seed: int, count: int = 3, dtype: torch.dtype = torch.float32) -> Cameras:
    rng = np.random.default_rng(seed)
    poses = np.stack([np.c_[random_rotation(rng), rng.normal(size=3)] for _ in range(count)])
    return Cameras(
        torch.tensor(poses, dtype=dtype),
        torch.tensor(rng.uniform(40, 90, (count, 2)), dtype=dtype),
        torch.tensor(rng.uniform(20, 40, (count, 2)), dtype=dtype),
        64,
        48,
    )


def slow_project(
    c2w: np.ndarray, focal: np.ndarray, principal: np.ndarray, point: np.ndarray
) -> tuple[np.ndarray, float]:
    """Textbook: world to OpenGL camera, flip to x right, y down, z forward, divide, intrinsic matrix."""
    world_to_camera = np.linalg.inv(np.vstack([c2w, [0, 0, 0, 1]]))
    x, y, z = np.diag([1, -1, -1]) @ (world_to_camera @ np.append(point, 1))[:3]
    intrinsic = np.array([[focal[0], 0, principal[0]], [0, focal[1], principal[1]], [0, 0, 1]])
    return (intrinsic @ np.array([x / z, y / z, 1]))[:2], z


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_projection_equals_the_textbook(seed: int) -> None:
    cameras = random_cameras(seed)
    points = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)) * 3
    pixels, depth = cameras.project(points, torch.arange(3))
    for i in range(3):
        expected, z = slow_project(
            *(t[i].double().numpy() for t in (cameras.camera_to_world, cameras.focal, cameras.principal, points))
        )
        assert depth[i] == pytest.approx(z, abs=1e-4)
        if z > 0.2:
            assert pixels[i].numpy() == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_every_camera_projects_as_each_does() -> None:
    cameras = random_cameras(1, dtype=torch.float64)
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pixels, depth = cameras.project_all(points)
    for k in range(3):
        own, z = cameras.project(points, torch.full((5,), k))
        torch.testing.assert_close(pixels[k], own)
        torch.testing.assert_close(depth[k], z)


@given(st.integers(0, 10_000), st.floats(0.1, 100.0))
@settings(max_examples=25, deadline=None)
def test_a_point_on_a_ray_projects_back_to_its_pixel_at_its_planar_depth(seed: int, z: float) -> None:
    cameras = random_cameras(seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    camera = torch.randint(0, 3, (20,), generator=generator)
    pixels = torch.rand(20, 2, generator=generator, dtype=torch.float64) * torch.tensor([64.0, 48.0])
    origins, directions = cameras.rays(camera, pixels)
    back, depth = cameras.project(origins + z * directions, camera)
    assert torch.allclose(back, pixels, atol=1e-8)
    assert torch.allclose(depth, torch.full_like(depth, z))


def test_the_convention_is_opengl_with_pixel_centres_at_a_half() -> None:
    cameras = Cameras(
        torch.eye(4)[None, :3], torch.tensor([[50.0, 50.0]]), torch.tensor([[2.0, 1.5]]), width=4, height=3
    )
    origins, directions = cameras.image_rays(0)
    assert directions.shape == (3, 4, 3)
    assert torch.equal(origins, torch.zeros(3, 4, 3))
    assert directions[0, 0].tolist() == pytest.approx([-1.5 / 50, 1.0 / 50, -1.0])  # left, up, forward
    assert directions[2, 3].tolist() == pytest.approx([1.5 / 50, -1.0 / 50, -1.0])


def test_points_behind_the_camera_have_no_positive_depth() -> None:
    cameras = random_cameras(1)
    behind = cameras.centres + cameras.camera_to_world[:, :, 2]
    pixels, depth = cameras.project(behind, torch.arange(3))
    assert torch.allclose(depth, -torch.ones(3), atol=1e-5)
    assert torch.isfinite(pixels).all()
    assert torch.isfinite(cameras.project(cameras.centres, torch.arange(3))[0]).all()


def test_a_point_is_in_view_where_its_pixel_is_one_of_the_image_and_it_lies_before_the_camera() -> None:
    cameras = random_cameras(1)
    nan, inf = math.nan, math.inf
    there = [[0.0, 0.0], [63.9, 47.9], [10.7, 3.2]]
    beside = [[64.0, 5.0], [5.0, 48.0], [-0.1, 5.0], [5.0, -0.1], [nan, 5.0], [inf, 5.0], [5.0, -inf], [1e20, 5.0]]
    pixels = torch.tensor([*there, *beside, [10.7, 3.2], [10.7, 3.2]])
    depth = torch.tensor([1.0] * 11 + [0.0, -1.0])
    inside, index = cameras.in_view(pixels, depth)
    assert inside.tolist() == [True] * 3 + [False] * 10
    assert index[:3].tolist() == [0, 47 * 64 + 63, 3 * 64 + 10]
    assert bool(((index >= 0) & (index < 64 * 48)).all())


def test_resized_cameras_see_the_same_rays() -> None:
    cameras = random_cameras(2)
    small = cameras.resized(32, 12)
    pixels = torch.tensor([[10.0, 20.0], [33.0, 7.0]])
    scaled = pixels * torch.tensor([0.5, 0.25])
    for a, b in zip(cameras.rays(torch.tensor([0, 2]), pixels), small.rays(torch.tensor([0, 2]), scaled), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert (small.width, small.height) == (32, 12)
    assert torch.allclose(small.resized(64, 48).focal, cameras.focal)


def test_indexing_keeps_poses_with_their_intrinsics() -> None:
    cameras = random_cameras(3)
    chosen = cameras[torch.tensor([2, 0])]
    assert torch.equal(chosen.camera_to_world[0], cameras.camera_to_world[2])
    assert torch.equal(chosen.focal[1], cameras.focal[0])
    assert len(cameras[1]) == 1
    assert len(cameras[1:]) == 2


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_look_at_is_a_rotation_whose_axis_meets_the_target(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centre, target, up = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    pose = look_at(centre, target, up)
    rotation = pose[:, :3]
    assert torch.allclose(rotation.T @ rotation, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0)
    distance = (target - centre).norm()
    assert torch.allclose(centre - distance * rotation[:, 2], target, atol=1e-9)
    assert torch.dot(rotation[:, 1], up) > 0
    assert abs(torch.dot(rotation[:, 0], up)) < 1e-9


def test_look_at_takes_batches() -> None:
    centres = torch.tensor([[0.0, 0, 2], [2, 0, 0]])
    poses = look_at(centres, torch.zeros(3), torch.tensor([0.0, 1, 0]))
    assert poses.shape == (2, 3, 4)
    assert torch.allclose(poses[0, :, :3], torch.eye(3), atol=1e-6)
    assert poses[1, :, 2].tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_pixel_centres() -> None:
    grid = pixel_centres(3, 2)
    assert grid.shape == (2, 3, 2)
    assert grid[1, 2].tolist() == [2.5, 1.5]
    assert math.isclose(grid.mean().item(), (1.5 + 1.0) / 2)
