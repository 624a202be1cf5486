import numpy as np
import pytest

from dpdy_core.ingest.turning import Pair, place_turning, solve_turning

FOCAL, SIZE = 500.0, (640, 480)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _clip(count: int, sweep: float, travel: float = 0.0, noise: float = 0.3) -> tuple[list[np.ndarray], list[Pair]]:
    """World-to-camera rotations and the matches of all pairs; `travel` moves the camera sideways by so much in all."""
    dice = np.random.default_rng(3)
    turns = [_rotation(sweep * (i / (count - 1) - 0.5), 3 * np.sin(i), 2 * np.cos(i)) for i in range(count)]
    rays = np.column_stack([dice.uniform(-1.5, 1.5, 3000), dice.uniform(-0.8, 0.8, 3000), np.ones(3000)])
    points = rays * dice.uniform(2, 8, 3000)[:, None]
    seen = []
    for i, turn in enumerate(turns):
        local = (points - [travel * i / (count - 1), 0, 0]) @ turn.T
        pixels = FOCAL * local[:, :2] / local[:, 2:] + noise * dice.standard_normal((3000, 2))
        inside = (np.abs(pixels) < np.array(SIZE) / 2).all(1) & (local[:, 2] > 0.1)
        seen.append((pixels, inside))
    pairs = []
    for i in range(count):
        for j in range(i + 1, count):
            both = seen[i][1] & seen[j][1]
            if both.sum() > 20:
                y = seen[j][0][both].copy()
                y[::20] += 40  # wrong matches
                pairs.append(Pair(i, j, seen[i][0][both], y))
    return turns, pairs


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("guess", [400.0, 800.0])
def test_rotations_and_focal_length_of_a_pan_are_found(guess: float) -> None:
    turns, pairs = _clip(7, 40.0)
    found = solve_turning(pairs, (guess,), False, lambda: None)
    assert found is not None
    assert found.fits
    assert found.focal == pytest.approx(FOCAL, rel=0.01)
    for i, rotation in found.rotations.items():
        assert _angle(rotation, turns[i] @ turns[0].T) < 0.1
    assert found.angle == pytest.approx(40, abs=1)


def test_a_known_focal_length_is_kept() -> None:
    turns, pairs = _clip(5, 20.0)
    found = solve_turning(pairs, (FOCAL,), True, lambda: None)
    assert found is not None
    assert found.focal == FOCAL
    assert _angle(found.rotations[4], turns[4] @ turns[0].T) < 0.05


def test_a_camera_that_moves_does_not_fit() -> None:
    found = solve_turning(_clip(6, 20.0, travel=0.15)[1], (FOCAL,), True, lambda: None)
    assert found is not None
    assert not found.fits


def test_frames_without_matches_are_left_out() -> None:
    _, pairs = _clip(6, 20.0)
    linked = [pair for pair in pairs if 5 not in (pair.first, pair.second)]
    found = solve_turning(linked, (FOCAL,), True, lambda: None)
    assert found is not None
    assert sorted(found.rotations) == [0, 1, 2, 3, 4]
    assert solve_turning([], (FOCAL,), True, lambda: None) is None


def test_a_frame_is_placed_against_the_others() -> None:
    turns, pairs = _clip(6, 20.0)
    rotations = {i: turns[i] for i in range(6) if i != 2}
    placed = place_turning(pairs, rotations, FOCAL, 2)
    assert placed is not None
    assert _angle(placed, turns[2]) < 0.05
    assert place_turning([], rotations, FOCAL, 2) is None
