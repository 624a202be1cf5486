import numpy as np
import pytest
from textured_room import SIZE, Room, render, sideways, write_room

from dpdy_core.ingest.clip import load_clip
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.plate import CLEAN, DOUBTFUL, NONE, UNKNOWN, _median, background_depth, filled, plate, sources

Filmed = tuple[Room, np.ndarray, np.ndarray, np.ndarray, list[Pinhole]]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Filmed:
    """A room with a mover: images, true masks, true depth of what stands still (0 on the mover), cameras."""
    room = write_room(tmp_path_factory.mktemp("room"), sideways(8, 1.0), mover=True)
    clip = load_clip(room.run.capture, "train", max(SIZE))
    assert clip is not None
    moving = np.stack([room.moving[name] for name in clip.names])
    depth = np.stack([room.depth[name] for name in clip.names])
    return room, clip.images.numpy(), moving, np.where(moving, 0, depth), pinholes(clip.cameras)


def _empty(room: Room) -> tuple[np.ndarray, np.ndarray]:
    """Images and depth of the same room without the mover."""
    shown = [render(pose, i / (len(room.poses) - 1), False)[:2] for i, pose in enumerate(room.poses.values())]
    return np.stack([rgb for rgb, _ in shown]), np.stack([depth for _, depth in shown])


def test_the_background_has_depth_and_colours_behind_a_mover(filmed: Filmed) -> None:
    room, images, moving, depth, cameras = filmed
    true_images, true_depth = _empty(room)
    chosen = [sources(i, depth[i], cameras) for i in range(8)]
    assert all(i not in others and len(others) == 7 for i, others in enumerate(chosen))
    behind = background_depth(depth, cameras, chosen)
    error = np.abs(behind - true_depth)[moving] / true_depth[moving]
    assert np.median(error) < 0.01
    assert (error < 0.05).mean() > 0.9

    colours, known = plate(4, images, moving, behind, cameras, chosen[4])
    off = np.abs(colours - true_images[4])[moving[4] & (known == CLEAN)]
    assert np.median(off) < 3
    assert (known[moving[4]] == CLEAN).mean() > 0.9
    assert np.median(np.abs(images[4].astype(float) - true_images[4])[moving[4]]) > 20, "the mover looks different"


def test_a_surface_that_is_masked_wherever_it_is_seen_is_doubtful_but_known(filmed: Filmed) -> None:
    _, images, moving, depth, cameras = filmed
    chosen = [sources(i, depth[i], cameras) for i in range(8)]
    behind = background_depth(depth, cameras, chosen)
    colours, known = plate(4, images, np.ones_like(moving), behind, cameras, chosen[4])
    assert set(np.unique(known)) <= {DOUBTFUL, UNKNOWN}
    static = ~moving[4] & (known == DOUBTFUL)
    assert static.mean() > 0.7
    assert np.median(np.abs(colours - images[4])[static]) < 3


def test_one_frame_that_sees_the_surface_says_more_than_many_with_a_mover_before_it(filmed: Filmed) -> None:
    room, images, moving, depth, cameras = filmed
    chosen = [sources(i, depth[i], cameras) for i in range(8)]
    behind = background_depth(depth, cameras, chosen)
    covered, tinted = np.ones_like(moving), np.full_like(images, 255)
    covered[2], tinted[2] = moving[2], images[2]
    colours, known = plate(4, tinted, covered, behind, cameras, chosen[4])
    clean = known == CLEAN
    assert clean.mean() > 0.7
    off = np.abs(colours - _empty(room)[0][4])[clean]
    assert np.median(off) < 5, "white, had the others counted"


def test_frames_that_look_elsewhere_make_no_plate(filmed: Filmed) -> None:
    _, images, moving, depth, cameras = filmed
    assert sources(0, np.zeros_like(depth[0]), cameras) == []
    colours, known = plate(0, images, moving, depth, cameras, [1, 2])
    assert (known == UNKNOWN).all()
    assert not colours.any()


def test_holes_get_the_nearest_depth() -> None:
    random = np.random.default_rng(0)
    depth = np.where(random.random((9, 12)) < 0.15, random.uniform(1, 5, (9, 12)), 0).astype(np.float32)
    y, x = np.nonzero(depth)
    found = filled(depth)
    for row in range(9):
        for column in range(12):
            distance = np.hypot(y - row, x - column)
            near = distance <= distance.min() + 0.2  # OpenCV's distances are good to a few per cent
            assert found[row, column] in depth[y[near], x[near]]
    assert not filled(np.zeros((3, 3), np.float32)).any()


@pytest.mark.parametrize("frames", [5, 6])
def test_the_median_leaves_out_what_nobody_saw(frames: int) -> None:
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (7, 8, 3, frames)).astype(np.int16)
    seen = random.random((7, 8, 1, frames)) < 0.6
    seen[..., 0] = True
    expected = np.nanmedian(np.where(seen, colours, np.nan), axis=-1)
    assert np.array_equal(_median(np.where(seen, colours, NONE).astype(np.int16)), expected)
