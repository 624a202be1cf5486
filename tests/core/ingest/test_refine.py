from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from textured_room import SIZE, Room, sideways, write_room

from dpdy_core.errors import Cancelled
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.cameras import solve_cameras
from dpdy_core.ingest.clip import read_depth, read_mask, read_transforms
from dpdy_core.ingest.depth import estimate_depth
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.ingest.refine import DRIFT, EVIDENCE, difference, refined_masks
from dpdy_core.rundir import sha256_file


def _masks(room: Room, key: str) -> np.ndarray:
    frames = [f for f in read_transforms(room.run.capture)["frames"] if key in f]
    return np.stack([read_mask(room.run.capture / f[key], SIZE) for f in frames])


def _overlap(found: np.ndarray, room: Room) -> float:
    true = np.stack([room.moving[name] for name in room.document["train_filenames"]])
    return float((found & true).sum() / (found | true).sum())


def _run(room: Room) -> None:
    for name, stage in (("masks", estimate_masks), ("depth", estimate_depth)):
        room.reporter.start(name)
        stage(room.run, room.config, room.reporter)


def _hashes(room: Room) -> dict[str, str]:
    return {str(p.relative_to(room.run.root)): sha256_file(p) for p in room.run.capture.rglob("*") if p.is_file()}


def test_masks_are_better_once_the_background_is_known(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(10, 1.2), mover=True, tests=(3, 7))
    _run(room)
    first, refined = _masks(room, "estimated_mask_path"), _masks(room, "motion_mask_path")
    assert len(refined) == 8, "held-out frames get none"
    assert _overlap(refined, room) > max(0.8, _overlap(first, room) + 0.1)
    document = read_transforms(room.run.capture)
    unit = document["depth_unit_scale_factor"]
    frames = [f for f in document["frames"] if "depth_file_path" in f]
    depth = np.stack([read_depth(room.run.capture / f["depth_file_path"], unit, SIZE) for f in frames])
    true = np.stack([room.depth[f["file_path"]] for f in frames])
    freed = first & ~refined & ~np.stack([room.moving[f["file_path"]] for f in frames])
    known = freed & (depth > 0)
    assert known.sum() > 0.3 * freed.sum(), "what was masked by mistake has depth, save near what hides it elsewhere"
    assert np.median(np.abs(depth - true)[known] / true[known]) < 0.05
    steps = [e for e in room.events if e["event"] == "step" and e["stage"] == "depth"]
    progress = [e["progress"] for e in steps]
    assert progress == sorted(progress), "triangulation, sweep and masks count as one"
    assert progress[-1] == 1 > progress[-2]
    said = steps[-1]["numbers"]
    assert {"moving_by_flow", "pixels_with_depth", "sparse_points"} <= set(said)
    assert said["moving_refined"] == pytest.approx(refined.mean(), abs=0.01)

    before = _hashes(room)
    room.reporter.start("depth")
    estimate_depth(room.run, room.config, room.reporter)
    assert _hashes(room) == before, "a stage that runs again starts from the first masks"


def test_cameras_are_found_beside_the_first_masks_also_when_they_are_found_again(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 1.0), mover=True)
    _run(room)
    room.reporter.start("cameras")
    solve_cameras(room.run, room.config, room.reporter)
    assert np.array_equal(_masks(room, "motion_mask_path"), _masks(room, "estimated_mask_path"))


def test_a_camera_that_stands_still_needs_no_depth(tmp_path: Path) -> None:
    room = write_room(tmp_path, [sideways(3, 1.0)[1]] * 8, mover=True)
    _run(room)
    assert not any("depth_file_path" in f for f in read_transforms(room.run.capture)["frames"])
    assert _overlap(_masks(room, "motion_mask_path"), room) > 0.8


def test_without_depth_behind_a_moving_camera_masks_stay(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(4, 0.8), mover=True, settings={"depth.source": "none"})
    _run(room)
    assert room.said("fallback") == ["without depth motion masks stay as flow draws them"]
    assert np.array_equal(_masks(room, "motion_mask_path"), _masks(room, "estimated_mask_path"))


def test_refinement_can_be_turned_off_and_stopped(tmp_path: Path) -> None:
    room = write_room(tmp_path / "off", sideways(4, 0.8), mover=True, settings={"masks.refine": False})
    _run(room)
    assert not (room.run.capture / "refined_masks").exists()
    room = write_room(tmp_path / "stopped", sideways(4, 0.8), mover=True)
    estimate_masks(room.run, room.config, room.reporter)
    before = read_transforms(room.run.capture)
    room.reporter.start("depth")
    room.reporter.request_stop()
    with pytest.raises(Cancelled):
        estimate_depth(room.run, room.config, room.reporter)
    assert read_transforms(room.run.capture) == before


def test_shadows_and_shifts_by_a_pixel_are_no_difference_and_other_colours_are() -> None:
    noise = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    background = cv2.GaussianBlur(noise, (0, 0), 2) * 200
    background[..., 0] += 40
    assert difference(background * 0.7, background).max() < 1
    assert difference(np.roll(background, 1, axis=1), background)[:, 2:-2].max() < 1
    assert np.median(difference(background[..., ::-1].copy(), background)) > 10
    assert np.median(difference(background * 0.2, background)) > 10, "too dark for a shadow"


def _posed(count: int) -> Cameras:
    """`count` frames of a camera that stands still."""
    return Cameras(
        camera_to_world=torch.eye(4)[:3].expand(count, 3, 4),
        focal=torch.full((count, 2), 120.0),
        principal=torch.tensor([[64.0, 48.0]]).expand(count, 2),
        width=128,
        height=96,
    )


def _still(static: np.ndarray) -> np.ndarray:
    return static.astype(np.float32)


@pytest.mark.parametrize("light", [1, 0.45], ids=["bright", "dark"])
def test_the_part_of_a_mover_that_looks_like_the_wall_is_masked_where_it_is_seen_to_drift(light: float) -> None:
    """A square moves before a still camera; its lower half has the wall's pattern, and nearly its colours."""
    random = np.random.default_rng(0)
    wall = cv2.GaussianBlur(random.integers(60, 190, (96, 128, 3)).astype(np.float32), (0, 0), 1.5)
    images, true = [], np.zeros((10, 96, 128), bool)
    for i in range(10):
        rows, columns = slice(30, 62), slice(8 + 8 * i, 40 + 8 * i)
        image = wall.copy()
        image[30:46, columns] = (230, 40, 40)
        image[46:62, columns] = wall[70:86, 8:40] + (17, 0, -17)
        images.append(np.clip(light * image, 0, 255).astype(np.uint8))
        true[i, rows, columns] = True
    nothing = np.zeros_like(true)
    lower = np.s_[2:8, 46:62]
    unseen = true.copy()
    unseen[:, 46:62] = False
    for first in (true, unseen):
        steps: list[tuple[int, int]] = []
        found, _ = refined_masks(np.stack(images), first, nothing, _still, _posed(10), lambda *step: steps.append(step))  # noqa: B023
        assert found[lower][true[lower]].mean() > 0.8
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    assert DRIFT < EVIDENCE, "drift alone masks nothing"


def test_the_foot_of_a_swaying_stalk_which_hardly_moves_is_masked_with_it() -> None:
    random = np.random.default_rng(0)
    wall = cv2.GaussianBlur(random.integers(40, 200, (96, 128, 3)).astype(np.float32), (0, 0), 1.5).astype(np.uint8)
    images, true = [], np.zeros((12, 96, 128), np.uint8)
    for image, mask, angle in zip([wall.copy() for _ in true], true, 0.5 * np.sin(np.arange(12)), strict=True):
        tip = (round(64 + 60 * np.sin(angle)), round(84 - 60 * np.cos(angle)))
        cv2.line(image, (64, 84), tip, (230, 60, 60), 7)
        cv2.line(mask, (64, 84), tip, 1, 7)
        images.append(image)
    foot = np.s_[:, 78:88]
    assert true[foot].all(0).sum() > 0.6 * true[foot].sum(-1).sum(-1).mean(), "most of it is there in all frames"
    nothing = np.zeros(true.shape, bool)
    found, resting = refined_masks(np.stack(images), nothing, nothing, _still, _posed(12), lambda *_: None)
    assert found[foot][true[foot] > 0].mean() > 0.8
    assert resting[foot].sum() > 0.6 * found[foot].sum(), "for its likeness alone"
    assert not resting[:, :45].any(), "where it sways far"
    assert (found & (true == 0)).sum() < 0.1 * true.sum()
