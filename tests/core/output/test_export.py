"""Exports of a scene known in closed form."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from analytic_scene import BALL_DEPTH, RADIUS, WALL
from plyfile import PlyData

from dpdy_core.errors import BadSettings
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import load_cameras, load_clip
from dpdy_core.output.export import export_run
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


def test_an_unknown_kind_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="obj"):
        export_run(make_run(0), "obj", tmp_path / "out")
