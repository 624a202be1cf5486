from pathlib import Path

import numpy as np
import pytest

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.llff import read_llff
from dpdy_core.synth.scenes import build_scene
from tests.bench import rig


def test_the_rendered_rig_is_read_as_a_dynamic_scene_of_twelve_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig, "WIDTH", 48)
    monkeypatch.setattr(rig, "HEIGHT", 27)
    rig.write_rig_capture(tmp_path / "rig", "rigid", 3)
    read = read_llff(tmp_path / "rig")
    cameras: Cameras = rig.rig(build_scene("rigid", 3).sweep)
    training = [frame for frame in read.frames if frame.split == "train"]
    held_out = [frame for frame in read.frames if frame.split == "test"]
    assert read.kind == "nvidia"
    assert (len(training), len(held_out)) == (12, 11)
    poses = [frame.pose[:3] for frame in training if frame.pose is not None]
    np.testing.assert_allclose(poses, cameras.camera_to_world.numpy(), atol=1e-6)
    assert all(frame.motion_mask is not None and frame.depth is not None for frame in training)
    assert [frame.lens.fl_x for frame in training if frame.lens] == pytest.approx(cameras.focal[:, 0].tolist())
    assert [frame.time for frame in held_out] == [frame.time for frame in training[1:]]
    assert all(frame.pose is not None and np.array_equal(frame.pose, training[0].pose) for frame in held_out)
