"""nerfstudio camera paths: read, written, and refused with a cause."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dpdy_core.errors import BadInput
from dpdy_core.geometry.path_file import camera_path_document, read_camera_path

POSE = [1, 0, 0, 0.5, 0, 1, 0, -1, 0, 0, 1, 2, 0, 0, 0, 1]


def document(**changes: Any) -> dict[str, Any]:
    frames = [{"camera_to_world": POSE, "fov": 50, "aspect": 1.5, "render_time": t} for t in (0.0, 0.25, 1.0)]
    return {
        "camera_type": "perspective",
        "render_width": 60,
        "render_height": 40,
        "fps": 24,
        "seconds": 4,
        "camera_path": frames,
    } | changes


def frame(**changes: Any) -> dict[str, Any]:
    return {"camera_to_world": POSE, "fov": 50, "aspect": 1.5} | changes


def write(folder: Path, content: Any) -> Path:
    path = folder / "path.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_nerfstudio_path_becomes_cameras_and_times(tmp_path: Path) -> None:
    path = read_camera_path(write(tmp_path, document()), 128, 96, 10.0)
    assert (path.cameras.width, path.cameras.height, path.fps, len(path)) == (60, 40, 24.0, 3)
    assert path.cameras.centres[0].tolist() == [0.5, -1, 2]
    assert path.cameras.focal[0].tolist() == pytest.approx([20 / math.tan(math.radians(25))] * 2)
    assert path.cameras.principal[0].tolist() == [30, 20]
    assert path.times.tolist() == [0, 0.25, 1]
    # The upper edge of the picture is half of the vertical field of view above the axis.
    _, directions = path.cameras.rays(torch.tensor([0]), torch.tensor([[30.0, 0.0]]))
    assert math.degrees(math.atan2(directions[0, 1], -directions[0, 2])) == pytest.approx(25, abs=1e-4)


def test_times_count_only_if_every_frame_has_one(tmp_path: Path) -> None:
    content = document()
    del content["camera_path"][1]["render_time"]
    content["camera_path"][0]["render_time"] = 0.7
    assert read_camera_path(write(tmp_path, content), 128, 96, 10.0).times.tolist() == [0, 0.5, 1]


def test_what_the_file_leaves_out_is_the_captures(tmp_path: Path) -> None:
    content = {"camera_path": [{"camera_to_world": POSE, "fov": 50}] * 2}
    path = read_camera_path(write(tmp_path, content), 128, 96, 10.0)
    assert (path.cameras.width, path.cameras.height, path.fps) == (128, 96, 10.0)
    path = read_camera_path(write(tmp_path, {"camera_path": [frame()] * 2, "seconds": 0.5}), 128, 96, 10.0)
    assert (path.cameras.width, path.cameras.height, path.fps) == (144, 96, 4.0)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    first = read_camera_path(write(tmp_path, document()), 128, 96, 10.0)
    second = read_camera_path(write(tmp_path, camera_path_document(first)), 128, 96, 10.0)
    assert torch.allclose(first.cameras.camera_to_world, second.cameras.camera_to_world, atol=1e-6)
    assert torch.allclose(first.cameras.focal, second.cameras.focal, rtol=1e-5)
    assert first.times.tolist() == second.times.tolist()


def test_a_nearly_orthonormal_rotation_is_made_exact(tmp_path: Path) -> None:
    pose = [v * 1.004 if i in (0, 5, 10) else v for i, v in enumerate(POSE)]
    path = read_camera_path(write(tmp_path, document(camera_path=[frame(camera_to_world=pose)])), 128, 96, 10.0)
    assert torch.allclose(path.cameras.camera_to_world[0, :, :3], torch.eye(3))


BROKEN: dict[str, tuple[Any, str]] = {
    "no json": ("{", "not readable as JSON"),
    "deep json": ("[" * 100_000, "not readable as JSON"),
    "list": ([1], "not an object"),
    "no frames": ({}, "camera_path is missing"),
    "empty": (document(camera_path=[]), "missing or empty"),
    "frame is text": (document(camera_path=["a"]), r"camera_path\[0\] is not an object"),
    "fisheye": (document(camera_type="fisheye"), "fisheye"),
    "short matrix": (document(camera_path=[frame(camera_to_world=POSE[:12])]), "16 finite numbers"),
    "nested matrix": (document(camera_path=[frame(camera_to_world=[POSE])]), "16 finite numbers"),
    "NaN": (document(camera_path=[frame(), frame(camera_to_world=[math.nan, *POSE[1:]])]), r"camera_path\[1\].*finite"),
    "huge": (document(camera_path=[frame(camera_to_world=[10**400, *POSE[1:]])]), "finite"),
    "column major": (
        document(camera_path=[frame(camera_to_world=[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 2, 3, 1])]),
        "last row",
    ),
    "scaled": (
        document(camera_path=[frame(camera_to_world=[2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1])]),
        "no rotation",
    ),
    "mirrored": (document(camera_path=[frame(camera_to_world=[-1, *POSE[1:]])]), "no rotation"),
    "no fov": (document(camera_path=[{"camera_to_world": POSE}]), "fov is None"),
    "fov 180": (document(camera_path=[frame(fov=180)]), "fov is 180"),
    "fov text": (document(camera_path=[frame(fov="50")]), "fov is '50'"),
    "aspect": (document(camera_path=[frame(aspect=-1)]), "aspect is -1"),
    "time": (document(camera_path=[frame(render_time=1.5)]), "render_time is 1.5"),
    "bool": (document(camera_path=[frame(render_time=True)]), "render_time is True"),
    "width": (document(render_width=100_000), "render_width is 100000"),
    "fps": (document(fps=0), "fps is 0"),
    "many": (document(camera_path=[frame()] * 10_001), "10001 frames"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_path_is_refused_with_its_cause(tmp_path: Path, name: str) -> None:
    content, cause = BROKEN[name]
    with pytest.raises(BadInput, match=cause):
        read_camera_path(write(tmp_path, content), 128, 96, 10.0)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no camera path 'none\.json'"):
        read_camera_path(tmp_path / "none.json", 128, 96, 10.0)
    with pytest.raises(BadInput, match="not readable"):
        read_camera_path(tmp_path, 128, 96, 10.0)
