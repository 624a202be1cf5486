"""Exports of a scene known in closed form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from analytic_scene import BALL_DEPTH, RADIUS, WALL, save
from plyfile import PlyData

from dpdy_core.errors import BadSettings
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import load_cameras, load_clip, read_transforms, write_transforms
from dpdy_core.ingest.colmap import read_colmap
from dpdy_core.ingest.frames import SourceCapture
from dpdy_core.ingest.nerfstudio import read_nerfstudio
from dpdy_core.ingest.sparse import POINTS_FILE, SparsePoints
from dpdy_core.output.export import export_run
from dpdy_core.output.exported_cameras import quaternion
from dpdy_core.rundir import RunDir

MakeRun = Callable[[int], RunDir]


def test_points_lie_on_the_true_surfaces(make_run: MakeRun, tmp_path: Path) -> None:
    file = export_run(make_run(1), "ply", tmp_path / "out")
    head = file.read_bytes()[:60]
    assert head.startswith(b"ply\nformat binary_little_endian 1.0")
    points = PlyData.read(str(file))["vertex"].data
    xyz = np.stack([points["x"], points["y"], points["z"]], axis=1)
    moving = points["dynamic"] == 1
    assert 20 < moving.sum() < len(points) / 2
    assert np.abs(xyz[~moving, 2] + WALL).max() < 1e-3
    centres = np.stack([-0.8 + 1.6 * points["time"], 0 * points["time"], 0 * points["time"] - BALL_DEPTH], axis=1)
    assert np.abs(np.linalg.norm(xyz[moving] - centres[moving], axis=1) - RADIUS).max() < 1e-3
    assert np.allclose(np.unique(points["time"]), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert (points["red"][moving] == 255).all()
    assert (points["green"][moving] == 51).all()


def test_frames_are_the_renders_of_the_training_views(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(1)
    folder = export_run(run, "frames", tmp_path / "out")
    clip = load_clip(run.capture, "train", 512)
    assert clip is not None
    files = sorted(folder.iterdir())
    assert [f.name for f in files] == [f"{i:05d}_train_{i}.png" for i in range(6)]
    for file, truth in zip(files, clip.images, strict=True):
        shown = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        assert np.abs(shown.astype(int) - truth.numpy()).max() <= 1


def test_transforms_read_back_as_the_same_cameras(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(2)
    document = json.loads(export_run(run, "transforms", tmp_path / "out").read_text())
    assert len(document["train_filenames"]) == 6
    assert len(document["test_filenames"]) == 2
    assert "depth_file_path" not in document["frames"][0]
    clip = load_clip(run.capture, "train", 512)
    assert clip is not None
    cameras: Cameras = load_cameras(document, document["frames"][:6])
    assert torch.equal(cameras.camera_to_world, clip.cameras.camera_to_world)
    assert torch.equal(cameras.focal, clip.cameras.focal)


def varied(run: RunDir) -> dict[str, dict[str, Any]]:
    """Give the run's frames poses in general position and intrinsics of their own; the frames by name."""
    document = read_transforms(run.capture)
    generator = np.random.default_rng(0)
    for index, frame in enumerate(document["frames"]):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(generator.normal(size=3) * 1.5)[0]
        pose[:3, 3] = generator.normal(size=3) * 100
        frame["transform_matrix"] = pose.tolist()
        frame |= {"fl_x": 40 + index / 7, "cx": 24.1 + index / 9} if index % 2 else {}
    mask = document["frames"][0]["mask_path"] = "masks/train_0.png"
    save(run.capture / mask, np.full((36, 48), 255, np.uint8))
    write_transforms(run.capture, document)
    return {f["file_path"]: {**document, **f} for f in document["frames"]}


def check_round_trip(capture: SourceCapture, truth: dict[str, dict[str, Any]], prefix: str) -> None:
    assert {prefix + frame.name for frame in capture.frames} == truth.keys()
    for frame in capture.frames:
        expected = truth[prefix + frame.name]
        assert frame.pose is not None
        assert np.abs(frame.pose - np.array(expected["transform_matrix"])).max() < 1e-6
        assert frame.lens is not None
        found = (frame.lens.fl_x, frame.lens.fl_y, frame.lens.cx, frame.lens.cy)
        assert found == pytest.approx([expected[key] for key in ("fl_x", "fl_y", "cx", "cy")], abs=1e-6)
        assert frame.time == expected["time"]
        assert frame.split == ("test" if "test" in frame.name else "train")
        assert (frame.mask is not None) == frame.name.endswith("train_0.png")


def test_transforms_are_a_capture_that_reads_back(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(2)
    truth = varied(run)
    file = export_run(run, "transforms", tmp_path / "out")
    assert json.loads(file.read_text())["val_filenames"] == ["images/test_0.png", "images/test_1.png"]
    capture = read_nerfstudio(file.parent)
    check_round_trip(capture, truth, "")
    for frame in capture.frames:
        assert frame.image.read_bytes() == (run.capture / frame.name).read_bytes()


def test_without_held_out_frames_there_are_no_lists(make_run: MakeRun, tmp_path: Path) -> None:
    file = export_run(make_run(0), "transforms", tmp_path / "out")
    assert not any(key.endswith("_filenames") for key in json.loads(file.read_text()))
    assert len(read_nerfstudio(file.parent).frames) == 6


def test_colmap_reads_back_here_and_there(make_run: MakeRun, tmp_path: Path) -> None:
    """Our own reader and COLMAP's find the cameras and the points of the run."""
    run = make_run(2)
    truth = varied(run)
    names = [f"images/train_{i}.png" for i in (1, 4)]
    xyz = np.array([[0.5, 1.5, 2.5], [9.0, 9.0, 9.0], [-3.25, 0.0, 7.0]])  # nobody saw the second
    places = np.array([[3.5, 4.5], [20.25, 30.75], [40.5, 2.5]])
    observed = {"frame": np.array([0, 0, 1]), "point": np.array([0, 2, 2]), "xy": places, "depth": np.ones(3)}
    SparsePoints(xyz=xyz, frames=names, **observed).save(run.capture / POINTS_FILE)
    folder = export_run(run, "colmap", tmp_path / "out")
    capture = read_colmap(folder)
    check_round_trip(capture, truth, "images/")
    assert capture.points is not None
    assert np.array_equal(capture.points, xyz[[0, 2]])
    seen = {f.name: f.points.tolist() for f in capture.frames if f.points is not None}
    assert {name: index for name, index in seen.items() if index} == {"train_1.png": [0, 1], "train_4.png": [1]}

    theirs = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    assert theirs.num_reg_images() == 8
    for image in theirs.images.values():
        expected = truth[f"images/{image.name}"]
        w2c = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        c2w = np.linalg.inv(w2c) @ np.diag([1.0, -1, -1, 1])
        assert np.abs(c2w - np.array(expected["transform_matrix"])).max() < 1e-6
        camera = theirs.cameras[image.camera_id]
        assert np.abs(camera.params - [expected[key] for key in ("fl_x", "fl_y", "cx", "cy")]).max() < 1e-6
        assert (folder / "images" / image.name).is_file()
    point = theirs.points3D[3]
    assert point.xyz.tolist() == xyz[2].tolist()
    assert {theirs.images[e.image_id].name for e in point.track.elements} == {"train_1.png", "train_4.png"}
    first = theirs.images[point.track.elements[0].image_id]
    assert first.points2D[point.track.elements[0].point2D_idx].xy.tolist() == [20.25, 30.75]
    picture = cv2.imread(str(run.capture / "images" / "train_1.png"))
    assert point.color.tolist() == picture[30, 20, ::-1].tolist()


@pytest.mark.parametrize("turn", [0.0, 1e-9, 1.0, np.pi - 1e-9, np.pi])
def test_quaternions_turn_as_their_matrices(turn: float) -> None:
    for axis in ([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, -0.8, 0]):
        rotation = cv2.Rodrigues(turn * np.array(axis))[0]
        w, x, y, z = found = quaternion(rotation)
        assert np.linalg.norm(found) == pytest.approx(1)
        assert np.abs(pycolmap.Rotation3d(np.array([x, y, z, w])).matrix() - rotation).max() < 1e-12


def test_an_unknown_kind_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="obj"):
        export_run(make_run(0), "obj", tmp_path / "out")
