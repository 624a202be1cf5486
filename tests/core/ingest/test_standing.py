import numpy as np
import pytest

from dpdy_core.ingest.standing import standing_depth

SIZE, FOCAL = (160, 120), 140.0
LENS = np.array([[FOCAL, 0, SIZE[0] / 2 - 0.5], [0, FOCAL, SIZE[1] / 2 - 0.5], [0, 0, 1]])
HEIGHT, PITCH, WALL = 1.5, np.radians(20), 8.0


def _room() -> np.ndarray:
    """(H, W) planar depth of a floor and a wall behind it, seen from above."""
    y = np.broadcast_to(np.arange(SIZE[1])[:, None] - SIZE[1] / 2 + 0.5, SIZE[::-1])
    fall = y / FOCAL * np.cos(PITCH) + np.sin(PITCH)  # along the ray, for one unit of depth
    floor = np.where(fall > 1e-6, HEIGHT / np.maximum(fall, 1e-6), np.inf)
    return np.minimum(floor, WALL)


def _floor(row: float) -> float:
    """Planar depth of the floor at a row: HEIGHT / (cos(pitch) (y - cy) / f + sin(pitch))."""
    return float(HEIGHT / ((row + 0.5 - SIZE[1] / 2) / FOCAL * np.cos(PITCH) + np.sin(PITCH)))


def _with(room: np.ndarray, *boxes: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Depth without, and the mask of, movers at (left, right, top, foot), their last pixels."""
    moving = np.zeros(room.shape, bool)
    for left, right, top, foot in boxes:
        moving[top : foot + 1, left : right + 1] = True
    return np.where(moving, 0, room).astype(np.float32), moving


def test_movers_get_the_floors_depth_at_their_feet() -> None:
    depth, moving = _with(_room(), (20, 35, 20, 70), (80, 100, 50, 105), (120, 130, 10, 60))
    noisy = depth * np.random.default_rng(0).normal(1, 0.01, depth.shape).astype(np.float32)
    for given, tolerance in ((depth, 2e-3), (noisy, 1e-2)):
        found = standing_depth(given, moving, LENS)
        assert (found[~moving] == 0).all()
        for x, y in ((27, 70), (90, 105), (125, 60)):
            column = found[moving[:, x], x]
            assert column == pytest.approx(_floor(y), rel=tolerance)


def test_outstretched_parts_do_not_move_the_feet() -> None:
    depth, moving = _with(_room(), (70, 80, 30, 90), (50, 100, 45, 50))  # arms
    assert standing_depth(depth, moving, LENS)[47, 52] == pytest.approx(_floor(90), rel=2e-3)


def test_things_beside_the_feet_do_not_count_as_floor() -> None:
    room = _room()
    room[70:98, 84:89] = _floor(97)  # a box that stands beside
    depth, moving = _with(room, (60, 80, 30, 90))
    assert standing_depth(depth, moving, LENS)[40, 70] == pytest.approx(_floor(90), rel=1e-2)


def test_a_stalk_gets_the_depth_of_the_pot_under_it() -> None:
    room = _room()
    room[60:100, 60:90] = 2.5  # its face carries nothing
    depth, moving = _with(room, (73, 76, 20, 66))
    found = standing_depth(depth, moving, LENS)
    assert found[moving] == pytest.approx(2.5)
    assert (found[~moving] == 0).all()


def test_what_shows_no_ground_is_not_put_behind_what_is_under_it() -> None:
    depth, moving = _with(_room(), (60, 80, 5, 20))  # it hangs before the wall
    assert standing_depth(depth, moving, LENS)[10, 70] == pytest.approx(WALL)


def test_on_rubble_a_mover_gets_the_depth_of_the_rubble_at_its_feet() -> None:
    rubble = np.random.default_rng(0).uniform(1, 6, SIZE[::-1])
    rubble[92] = 0  # no depth was found right under the feet
    depth, moving = _with(rubble, (60, 80, 30, 91))
    found = standing_depth(depth, moving, LENS)[40, 70]
    assert found == pytest.approx(1 / np.median(1 / rubble[93, 60:81]))


@pytest.mark.parametrize(
    ("box", "known"),
    [
        ((60, 80, 30, 119), True),  # the feet are outside of the picture
        ((60, 80, 30, 90), False),  # nothing is known of the ground
        ((60, 61, 88, 89), True),  # a speck
    ],
)
def test_without_feet_or_ground_there_is_no_guess(box: tuple[int, int, int, int], known: bool) -> None:
    depth, moving = _with(_room() if known else np.zeros(SIZE[::-1]), box)
    assert not standing_depth(depth, moving, LENS).any()
