import json
import zipfile
from pathlib import Path

import pytest

from api.client.pack import capture_files, pack_folder
from dpdy_core.errors import BadInput


def write(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 10)


def transforms(folder: Path, *frames: dict[str, str]) -> None:
    (folder / "transforms.json").write_text(json.dumps({"frames": list(frames)}))


def test_a_nerfstudio_folder_sends_only_what_its_transforms_name(tmp_path: Path) -> None:
    write(tmp_path, "images/0.png", "images/unused.png", "depth/0.png", "notes.txt", ".git/config", "private.mp4")
    transforms(tmp_path, {"file_path": "images/0.png", "depth_file_path": "depth/0.png"})
    assert [str(path) for path in capture_files(tmp_path)] == ["depth/0.png", "images/0.png", "transforms.json"]


def test_a_file_path_without_suffix_finds_the_picture(tmp_path: Path) -> None:
    write(tmp_path, "images/0.jpg")
    transforms(tmp_path, {"file_path": "./images/0"})
    assert Path("images/0.jpg") in capture_files(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "images/missing.png"])
def test_a_name_that_is_outside_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "images/0.png")
    transforms(tmp_path, {"file_path": name})
    with pytest.raises(BadInput, match=name.replace("/", ".")):
        capture_files(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": 3}', '{"frames": [1]}'])
def test_a_broken_transforms_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(BadInput, match=r"transforms\.json"):
        capture_files(tmp_path)


def test_other_captures_send_pictures_arrays_and_texts_but_nothing_hidden(tmp_path: Path) -> None:
    write(tmp_path, "rgb/1x/0.png", "camera/0.json", "depth/0.npy", "points3D.bin", "metadata")
    write(tmp_path, ".venv/a.png", "__MACOSX/b.png", "run.sh", "model.ckpt")
    kept = {str(path) for path in capture_files(tmp_path)}
    assert kept == {"rgb/1x/0.png", "camera/0.json", "depth/0.npy", "points3D.bin", "metadata"}


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "run.sh")
    with pytest.raises(BadInput, match="no pictures"):
        pack_folder(tmp_path, tmp_path / "out.zip")


def test_the_zip_holds_the_same_bytes_and_does_not_pack_pictures_again(tmp_path: Path) -> None:
    write(tmp_path / "capture", "images/0.png")
    transforms(tmp_path / "capture", {"file_path": "images/0.png"})
    assert pack_folder(tmp_path / "capture", tmp_path / "out.zip") == 2
    with zipfile.ZipFile(tmp_path / "out.zip") as bundle:
        assert bundle.read("images/0.png") == b"x" * 10
        assert bundle.getinfo("images/0.png").compress_type == zipfile.ZIP_STORED
        assert bundle.getinfo("transforms.json").compress_type == zipfile.ZIP_DEFLATED
