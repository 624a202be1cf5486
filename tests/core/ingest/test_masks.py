from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from textured_room import SIZE, Room, sideways, write_room

from dpdy_core.errors import Cancelled
from dpdy_core.ingest.clip import read_mask, read_transforms, write_transforms
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.progress import Reporter


def _masks(room: Room) -> dict[str, np.ndarray]:
    frames = read_transforms(room.run.capture)["frames"]
    return {
        f["file_path"]: read_mask(room.run.capture / f["motion_mask_path"], SIZE)
        for f in frames
        if "motion_mask_path" in f
    }


def _overlap(masks: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    found, true = np.stack(list(masks.values())), np.stack([truth[name] for name in masks])
    return float((found & true).sum() / (found | true).sum())


def _run(room: Room) -> dict[str, np.ndarray]:
    room.reporter.start("masks")
    estimate_masks(room.run, room.config, room.reporter)
    return _masks(room)


@pytest.mark.parametrize("given", [True, False], ids=["poses", "no-poses"])
def test_the_mover_is_found_behind_a_moving_camera(tmp_path: Path, given: bool) -> None:
    room = write_room(tmp_path, sideways(12, 1.2), mover=True, tests=(3, 9), given=given)
    masks = _run(room)
    assert sorted(masks) == room.document["train_filenames"], "held-out frames get none"
    assert _overlap(masks, room.moving) > 0.55
    assert not room.said("fallback")


def test_a_still_scene_has_empty_masks(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(8, 0.8))
    masks = _run(room)
    assert np.mean([m.mean() for m in masks.values()]) < 0.02


def test_a_still_camera_is_said_and_still_shows_the_mover(tmp_path: Path) -> None:
    room = write_room(tmp_path, [sideways(3, 1.0)[1]] * 10, mover=True, given=False)
    masks = _run(room)
    assert any("hardly moves" in message for message in room.said("warning"))
    assert _overlap(masks, room.moving) > 0.55


def test_masks_are_the_same_each_time(tmp_path: Path) -> None:
    one = _run(write_room(tmp_path / "a", sideways(6, 0.8), mover=True, given=False))
    two = _run(write_room(tmp_path / "b", sideways(6, 0.8), mover=True, given=False))
    assert all((one[name] == two[name]).all() for name in one)


def _with_own_mask(room: Room, name: str) -> np.ndarray:
    document = read_transforms(room.run.capture)
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[:10] = 255
    (room.run.capture / "motion_masks").mkdir()
    cv2.imwrite(str(room.run.capture / "motion_masks" / "own.png"), mask)
    next(f for f in document["frames"] if f["file_path"] == name)["motion_mask_path"] = "motion_masks/own.png"
    write_transforms(room.run.capture, document)
    return mask > 0


def test_a_mask_of_the_capture_is_kept(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8), mover=True)
    own = _with_own_mask(room, "images/002.png")
    masks = _run(room)
    assert (masks["images/002.png"] == own).all()
    assert len(masks) == 6
    assert not (masks["images/003.png"] == own).all()


def test_only_the_masks_of_the_capture(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8), mover=True, settings={"masks.source": "capture"})
    _with_own_mask(room, "images/002.png")
    assert list(_run(room)) == ["images/002.png"]
    assert room.said("fallback") == ["5 of 6 training frames have no motion mask: taken as static"]


def test_masks_can_be_left_out(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8), mover=True, settings={"masks.source": "none"})
    _with_own_mask(room, "images/002.png")
    assert _run(room) == {}


def test_the_masks_of_the_capture_can_be_replaced(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8), mover=True, settings={"masks.source": "epipolar"})
    own = _with_own_mask(room, "images/002.png")
    masks = _run(room)
    assert len(masks) == 6
    assert not (masks["images/002.png"] == own).all()


def test_it_stops_when_asked_and_leaves_the_document_as_it_was(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 0.8), mover=True)
    before = read_transforms(room.run.capture)
    stopping = Reporter(_stop_at_first_step(lambda: stopping.request_stop()), interval=0)
    stopping.start("masks")
    with pytest.raises(Cancelled):
        estimate_masks(room.run, room.config, stopping)
    assert read_transforms(room.run.capture) == before


def _stop_at_first_step(stop: Callable[[], None]) -> Callable[[dict[str, object]], None]:
    return lambda event: stop() if event["event"] == "step" else None
