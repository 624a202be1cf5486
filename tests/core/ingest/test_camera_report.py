import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from textured_room import FOCAL, SIZE, camera, sideways, write_room

from dpdy_core.ingest.camera_report import add_cameras, describe_cameras, look_at_point, multi_view_factor
from dpdy_core.ingest.camera_report import reprojection_error as mean_error
from dpdy_core.ingest.cameras import solve_cameras
from dpdy_core.ingest.pictures import camera_path, depth_maps, mask_overlays, pictures_of
from dpdy_core.ingest.pinhole import Pinhole
from dpdy_core.ingest.sparse import SparsePoints
from dpdy_core.ingest.tiles import write_pictures
from dpdy_core.rundir import read_json, write_json

TARGET = np.array([0.2, 0.1, -3.0])


def pinhole(c2w: np.ndarray) -> Pinhole:
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ c2w[:3, :3].T
    k = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]])
    return Pinhole(k, np.column_stack([rotation, -rotation @ c2w[:3, 3]]))


def circle(degrees: float, count: int) -> list[Pinhole]:
    """Cameras on an arc of `degrees` about TARGET that look at it."""
    angles = np.radians(np.linspace(0, degrees, count))
    return [pinhole(camera(TARGET + 2 * np.array([np.sin(a), 0.0, np.cos(a)]), TARGET)) for a in angles]


def test_multi_view_factor_is_the_speed_on_a_circle() -> None:
    cameras = circle(30, 16)
    assert look_at_point(cameras) == pytest.approx(TARGET, abs=1e-9)
    assert multi_view_factor(cameras, 24) == pytest.approx(24 * 30 / 15, rel=1e-6)


def test_cameras_that_look_the_same_way_have_no_multi_view_factor() -> None:
    ahead = [pinhole(camera(np.array([x, 0.0, 0.0]), np.array([x, 0.0, -3.0]))) for x in (0.0, 0.5, 1.0)]
    assert multi_view_factor(ahead, 24) is None
    assert multi_view_factor(ahead[:1], 24) is None


def test_reprojection_error_is_the_mean_distance() -> None:
    cameras = dict(zip(("a", "b"), circle(10, 2), strict=True))
    xyz = TARGET + np.random.default_rng(0).normal(0, 0.2, (20, 3))
    off = np.array([[3.0, 4.0], [0.0, 1.0]])
    seen = [c.project(xyz)[0] + 0.5 + shift for c, shift in zip(cameras.values(), off, strict=True)]
    points = SparsePoints(
        xyz, ["a", "b"], np.repeat([0, 1], 20), np.tile(np.arange(20), 2), np.vstack(seen), np.ones(40)
    )
    assert mean_error(points, cameras) == pytest.approx(3.0, abs=1e-9)
    assert mean_error(points, {}) is None


REPORT = {
    **{"kind": "images", "frames": 8, "fps": 24.0, "duration": 0.3, "width": 640, "height": 480},
    **{"bits_per_pixel": None, "has_poses": False, "notes": ["a note"], "splits": {"train": 20, "val": 0, "test": 0}},
    "sharpness": {"median": 500.0, "lowest": 400.0, "blurred_share": 0.0},
    "brightness": {"median": 0.5, "largest_jump": 0.0},
    "motion": {
        **{"features": 500, "linked_share": 0.3, "breaks": [], "moved": 0.1, "parallax": 0.5, "disorder": 0.1},
        **{"moving_share": 0.1, "repeated_share": 0.0},
    },
}


def test_the_report_of_a_run_speaks_of_the_cameras_it_found(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(8, 1.2), given=False)
    document = read_json(room.run.transforms_file)
    write_json(room.run.transforms_file, {**document, "fps": 12.0})
    write_json(room.run.capture_report_file, {**REPORT, "chosen": {"train": 10}})
    room.reporter.start("cameras")
    solve_cameras(room.run, room.config, room.reporter)
    report = read_json(room.run.capture_report_file)
    numbers = [e for e in room.events if e["event"] == "step"][-1]["numbers"]
    assert report["cameras"]["registered_share"] == pytest.approx(0.8)
    assert report["cameras"]["reprojection_error_px"] == pytest.approx(numbers["reprojection_error_px"], rel=0.05)
    assert 0 < report["cameras"]["focal_deviation"] < 0.05
    assert report["cameras"]["multi_view_factor"] > 1
    assert report["verdict"] == "risky"  # a first look had said that too little hangs together
    assert any("only 80% of the frames found their camera" in r["what"] for r in report["reasons"])
    assert report["warnings"][0] == "a note"


def test_given_cameras_are_described_without_points(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 1.0))
    write_json(room.run.transforms_file, {**room.document, "fps": 10.0})
    found = describe_cameras(room.run.capture, {"chosen": {"train": 6}})
    assert (found["source"], found["registered_share"]) == ("capture", 1.0)
    assert found["reprojection_error_px"] is None
    assert found["focal_deviation"] is None
    assert found["baseline"] is None
    add_cameras(room.run)  # without a report of ingest there is nothing to add to
    assert not room.run.capture_report_file.exists()


def test_pictures_show_what_there_is(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(6, 1.0))
    assert mask_overlays(room.run.capture) is None
    assert depth_maps(room.run.capture) is None
    drawn = camera_path(room.run.capture)
    assert drawn is not None
    assert drawn.count("<polyline") == 1
    written = write_pictures(tmp_path / "out", pictures_of(room.run.capture))
    assert [path.name for path in written] == ["cameras.svg"]
    assert json.dumps(read_json(room.run.transforms_file))  # pictures change nothing


def test_pictures_of_masks_and_depth(tmp_path: Path) -> None:
    room = write_room(tmp_path, sideways(5, 1.0), mover=True)
    document = read_json(room.run.transforms_file)
    for frame in document["frames"]:
        name = frame["file_path"]
        for key, values in (
            ("motion_mask_path", np.where(room.moving[name], 255, 0).astype(np.uint8)),
            ("depth_file_path", (1000 * room.depth[name]).clip(0, 65535).astype(np.uint16)),
        ):
            frame[key] = f"{key}_{Path(name).name}"
            cv2.imwrite(str(room.run.capture / frame[key]), values)
    write_json(room.run.transforms_file, document)
    masks, depth = mask_overlays(room.run.capture), depth_maps(room.run.capture)
    assert masks is not None
    assert depth is not None
    assert masks.shape == depth.shape == (SIZE[1], 4 * SIZE[0], 3)
    first = read_json(room.run.transforms_file)["frames"][0]["file_path"]
    image = cv2.imread(str(room.run.capture / first))[:, :, ::-1]
    changed = (masks[:, : SIZE[0]].astype(int) != image).any(-1)
    assert (changed == room.moving[first]).all()
    near, far = room.depth[first] < 2.5, room.depth[first] > 3.8
    colours = depth[:, : SIZE[0]].astype(int)
    assert (colours[near][:, 0] > colours[near][:, 2]).mean() > 0.9  # red
    assert (colours[far][:, 2] > colours[far][:, 0]).mean() > 0.9  # blue
