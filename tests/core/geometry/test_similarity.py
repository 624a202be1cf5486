import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdy_core.geometry.similarity import Similarity, align_poses, umeyama, upright


def _rotation(generator: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(generator.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_umeyama_finds_the_similarity_that_was_applied(seed: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    source = generator.standard_normal((7, 3))
    true = Similarity(scale, _rotation(generator), generator.standard_normal(3))
    found = umeyama(source, true.points(source))
    assert found.scale == pytest.approx(scale, rel=1e-8)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-7)
    np.testing.assert_allclose(found.points(source), true.points(source), atol=1e-7 * max(scale, 1))


def test_umeyama_is_no_worse_than_its_neighbourhood() -> None:
    generator = np.random.default_rng(3)
    source = generator.standard_normal((20, 3))
    target = source * 2 + generator.standard_normal((20, 3)) * 0.3
    found = umeyama(source, target)
    least = ((found.points(source) - target) ** 2).sum()
    for _ in range(100):
        angle = generator.standard_normal(3) * 0.02
        cross = np.array([[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]])
        turn, _ = np.linalg.qr(np.eye(3) + cross)
        turn = turn * np.sign(np.diag(turn))
        other = Similarity(
            found.scale * (1 + 0.02 * generator.standard_normal()),
            turn @ found.rotation,
            found.shift + 0.02 * generator.standard_normal(3),
        )
        assert ((other.points(source) - target) ** 2).sum() >= least


def test_umeyama_never_mirrors() -> None:
    source = np.random.default_rng(0).standard_normal((10, 3))
    found = umeyama(source, source * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)


@pytest.mark.parametrize("source", [np.zeros((2, 3)), np.ones((5, 3))])
def test_umeyama_refuses_what_has_no_answer(source: np.ndarray) -> None:
    with pytest.raises(ValueError, match="points"):
        umeyama(source, source)


@pytest.mark.parametrize("down", [False, True])
def test_upright_turns_the_cameras_up_and_scales_depth(down: bool) -> None:
    generator = np.random.default_rng(1)
    up = np.array([0.2, -0.9, 0.3]) / np.linalg.norm([0.2, -0.9, 0.3])
    if down:
        up = np.array([0.0, 0.0, -1.0])
    right = np.cross(up, [1.0, 0, 0])
    right /= np.linalg.norm(right)
    pose = np.column_stack([right, up, np.cross(right, up), [5.0, 6, 7]])
    poses = np.stack([pose] * 4)
    poses[:, :, 3] += generator.standard_normal((4, 3))
    depths = generator.uniform(10, 30, 101)
    world = upright(poses, depths, 3.0)
    moved = world.camera_to_world(poses)
    np.testing.assert_allclose(moved[:, :3, 1], np.tile([0.0, 0, 1], (4, 1)), atol=1e-9)
    np.testing.assert_allclose(moved[:, :3, 3].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(
        np.einsum("nij,nkj->nik", moved[:, :3, :3], moved[:, :3, :3]), np.tile(np.eye(3), (4, 1, 1)), atol=1e-9
    )
    assert np.median(depths) * world.scale == pytest.approx(3.0)


def test_poses_on_a_straight_path_are_aligned_by_their_rotations() -> None:
    dice = np.random.default_rng(5)
    source = np.zeros((6, 4, 4))
    source[:, :3, :3] = [_rotation(dice) for _ in range(6)]
    source[:, 0, 3] = np.arange(6)  # its spin about x is left open by the centres
    truth = Similarity(2.5, _rotation(dice), np.array([1.0, -2.0, 3.0]))
    found = align_poses(source, truth.camera_to_world(source))
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-12)
    np.testing.assert_allclose(found.shift, truth.shift, atol=1e-12)
    assert found.scale == pytest.approx(2.5)
    with pytest.raises(ValueError, match="one place"):
        align_poses(np.tile(np.eye(4), (3, 1, 1)), source[:3])
    with pytest.raises(ValueError, match="two or more"):
        align_poses(source[:1], source[:1])
