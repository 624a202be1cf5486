"""Broken and hostile input: exit code 3, the cause is named, no run is left."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.e2e.engine import dpdy, here


def _video(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _text_named_mp4(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("this is not a video\n" * 50)
    return path


def _truncated_mp4(folder: Path) -> Path:
    path = folder / "cut.mp4"
    _video(path, 30)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def _one_frame_video(folder: Path) -> Path:
    path = folder / "one.mp4"
    _video(path, 1)
    return path


def _capture(folder: Path, change: Callable[[dict, Path], None]) -> Path:
    root = folder / "capture"
    (root / "images").mkdir(parents=True)
    frames = []
    for index in range(4):
        name = f"images/{index}.png"
        Image.new("RGB", (32, 24), (index * 40, 90, 30)).save(root / name)
        pose = np.eye(4)
        pose[0, 3] = 0.1 * index
        frames.append({"file_path": name, "transform_matrix": pose.tolist()})
    document = {"fl_x": 30, "fl_y": 30, "cx": 16, "cy": 12, "w": 32, "h": 24, "frames": frames}
    change(document, root)
    (root / "transforms.json").write_text(json.dumps(document))
    return root


def _huge_image(folder: Path) -> Path:
    def change(document: dict, root: Path) -> None:
        Image.new("1", (20000, 20000)).save(root / "images/0.png")
        document["w"] = document["h"] = 20000

    return _capture(folder, change)


def _missing_image(folder: Path) -> Path:
    return _capture(folder, lambda _, root: (root / "images/2.png").unlink())


def _nan_pose(folder: Path) -> Path:
    def change(document: dict, _: Path) -> None:
        document["frames"][1]["transform_matrix"][0][3] = float("nan")

    return _capture(folder, change)


def _escaping_path(folder: Path) -> Path:
    def change(document: dict, root: Path) -> None:
        shutil.copy(root / "images/0.png", folder / "outside.png")
        document["frames"][0]["file_path"] = "../outside.png"

    return _capture(folder, change)


CASES: list[tuple[Callable[[Path], Path], str]] = [
    (_text_named_mp4, "video"),
    (_truncated_mp4, "interrupted"),
    (_one_frame_video, "frame"),
    (_huge_image, "400 megapixels"),
    (_missing_image, "images/2.png"),
    (_nan_pose, "images/1.png"),
    (_escaping_path, "outside"),
]


@pytest.mark.parametrize(("make", "words"), CASES, ids=[make.__name__.strip("_") for make, _ in CASES])
def test_bad_input_is_exit_3_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path], words: str
) -> None:
    source = make(tmp_path)
    run = tmp_path / "run"
    assert here("run", source, "--out", run, "--preset", "smoke", "--json") == 3
    said = capsys.readouterr()
    problem = json.loads(said.out)
    assert words in problem["detail"]
    assert problem["remedy"]
    assert "Traceback" not in said.err
    assert not run.exists()
    assert here("inspect", source, "--json") == 3
    assert words in json.loads(capsys.readouterr().out)["detail"]


def test_as_a_process_it_is_the_same(tmp_path: Path) -> None:
    """All that the command writes, its libraries included, and the code that the shell sees."""
    source, run = _nan_pose(tmp_path), tmp_path / "run"
    result = dpdy("run", source, "--out", run, "--preset", "smoke", "--json", check=3)
    assert "images/1.png" in json.loads(result.stdout)["detail"]
    assert "Traceback" not in result.stderr
    assert not run.exists()
