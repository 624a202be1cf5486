import numpy as np
import pytest
from textured_room import FOCAL, SIZE, sideways

from dpdy_core.ingest.epipolar import (
    CameraMotion,
    fit_motion,
    fundamental_from_poses,
    motion_from_poses,
    sampson_distance,
)
from dpdy_core.ingest.pinhole import Pinhole, camera_to_world

K = np.array([[FOCAL, 0, SIZE[0] / 2 - 0.5], [0, FOCAL, SIZE[1] / 2 - 0.5], [0, 0, 1]])


def _pinhole(c2w: np.ndarray) -> Pinhole:
    rotation = np.diag([1.0, -1, -1]) @ c2w[:3, :3].T
    return Pinhole(K, np.column_stack([rotation, -rotation @ c2w[:3, 3]]))


def _points(count: int, flat: bool = False) -> np.ndarray:
    generator = np.random.default_rng(0)
    points = generator.uniform([-1.2, -0.9, -4], [1.2, 0.9, -2], (count, 3))
    if flat:
        points[:, 2] = -3
    return points


def _seen(points: np.ndarray, *cameras: Pinhole) -> list[np.ndarray]:
    return [camera.project(points)[0] for camera in cameras]


def test_pinhole_round_trips() -> None:
    c2w = sideways(5, 1.0)[1]
    camera = _pinhole(c2w)
    np.testing.assert_allclose(camera_to_world(camera.w2c), c2w, atol=1e-12)
    np.testing.assert_allclose(camera.centre, c2w[:3, 3], atol=1e-12)
    points = _points(20)
    pixels, depth = camera.project(points)
    np.testing.assert_allclose(camera.lift(pixels, depth), points, atol=1e-9)


def test_static_points_lie_on_their_epipolar_lines() -> None:
    one, two = _pinhole(sideways(2, 1.0)[0]), _pinhole(sideways(2, 1.0)[1])
    x, y = _seen(_points(200), one, two)
    fundamental = fundamental_from_poses(one.k, one.w2c, two.k, two.w2c)
    assert sampson_distance(fundamental, x, y).max() < 1e-9


def test_sampson_distance_is_close_to_the_least_correction() -> None:
    """Reference: move both points as little as possible onto the constraint, by Newton's steps on the Lagrangian."""
    one, two = _pinhole(sideways(2, 1.0)[0]), _pinhole(sideways(2, 1.0)[1])
    fundamental = fundamental_from_poses(one.k, one.w2c, two.k, two.w2c)
    x, y = _seen(_points(30), one, two)
    y = y + np.random.default_rng(1).standard_normal(y.shape) * 0.7
    for a, b, distance in zip(x, y, sampson_distance(fundamental, x, y), strict=True):
        v, start = np.concatenate([a, b]), np.concatenate([a, b])
        for _ in range(50):
            left, right = np.append(v[:2], 1), np.append(v[2:], 1)
            value = right @ fundamental @ left
            gradient = np.concatenate([(fundamental.T @ right)[:2], (fundamental @ left)[:2]])
            # The nearest point of the constraint's tangent plane at v, from the start.
            v = start - gradient * (value + gradient @ (start - v)) / (gradient @ gradient)
        assert distance == pytest.approx(np.linalg.norm(v - start), rel=0.02, abs=1e-6)


def test_a_fundamental_matrix_is_fitted_past_outliers() -> None:
    one, two = _pinhole(sideways(2, 1.0)[0]), _pinhole(sideways(2, 1.0)[1])
    x, y = _seen(_points(400), one, two)
    y[:80] += [3.0, 9.0]
    motion = fit_motion(x, y, 0.5)
    residual = motion.residual(x, y)
    assert motion.model == "fundamental"
    assert np.median(residual[80:]) < 0.05
    assert np.median(residual[:80]) > 3


@pytest.mark.parametrize("flat", [True, False])
def test_without_parallax_a_homography_is_used(flat: bool) -> None:
    c2w = sideways(2, 1.0)
    turned = c2w[0].copy()
    turned[:3, :3] = c2w[1][:3, :3]  # turns in place unless the scene is flat
    one, two = _pinhole(c2w[0]), _pinhole(c2w[1] if flat else turned)
    x, y = _seen(_points(300, flat), one, two)
    y[:30] += [2.0, 4.0]
    motion = fit_motion(x, y, 0.5)
    assert motion.model == "homography"
    assert np.median(motion.residual(x, y)[:30]) > 2


def test_a_camera_that_stands_still_is_recognised() -> None:
    one = _pinhole(sideways(2, 1.0)[0])
    (x,) = _seen(_points(300), one)
    y = x + np.random.default_rng(0).standard_normal(x.shape) * 0.05
    y[:30] += 5
    motion = fit_motion(x, y, 0.5)
    assert motion.model == "still"
    np.testing.assert_allclose(motion.residual(x, y)[:30], np.hypot(5, 5), atol=0.5)


def test_known_cameras_without_baseline_predict_by_rotation() -> None:
    c2w = sideways(2, 1.0)
    turned = c2w[0].copy()
    turned[:3, :3] = c2w[1][:3, :3]
    one, two = _pinhole(c2w[0]), _pinhole(turned)
    x, y = _seen(_points(100), one, two)
    motion = motion_from_poses(one, two, x, y)
    assert motion.model == "homography"
    assert motion.residual(x, y).max() < 1e-6
    moved = motion_from_poses(_pinhole(c2w[0]), _pinhole(c2w[1]), *_seen(_points(100), one, _pinhole(c2w[1])))
    assert moved.model == "poses"


def test_too_few_pairs_are_no_motion() -> None:
    assert fit_motion(np.zeros((3, 2)), np.ones((3, 2)), 0.5) == CameraMotion("still", pytest.approx(np.eye(3)))
