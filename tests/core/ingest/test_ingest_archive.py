import resource
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ingest_samples import make_images, make_posed

from dpdy_core.errors import BadInput, Cancelled
from dpdy_core.ingest import archive as archive_module
from dpdy_core.ingest.archive import extract, is_zip
from dpdy_core.ingest.source import open_source


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def pack_members(archive: Path, *members: tuple[str, bytes], mode: int = 0, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = mode << 16
            opened.writestr(info, data)
    return archive


@pytest.mark.parametrize("prefix", ["", "capture/", "./"])
def test_posed_zip_with_and_without_a_top_folder(tmp_path: Path, prefix: str) -> None:
    archive = pack(make_posed(tmp_path / "c"), tmp_path / "c.zip", prefix)
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/capture/._frame0.png", b"junk")
        opened.writestr(".DS_Store", b"junk")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_source(archive, scratch) as source:
        assert source.kind == "nerfstudio"
        assert len(source.frames) == 6
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())


def test_zip_of_frames_is_read_in_natural_order(tmp_path: Path) -> None:
    archive = pack(make_images(tmp_path / "frames", 12), tmp_path / "c.zip", "my clip/")
    with open_source(archive, tmp_path) as source:
        assert [frame.name for frame in source.frames] == [f"frame{i}.png" for i in range(12)]


def test_scratch_is_removed_when_the_reader_fails(tmp_path: Path) -> None:
    folder = make_posed(tmp_path / "c")
    (folder / "images" / "frame2.png").unlink()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(BadInput, match="missing"), open_source(pack(folder, tmp_path / "c.zip"), scratch):
        pass
    assert not list(scratch.iterdir())


def test_unpacking_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled), open_source(pack(make_posed(tmp_path / "c"), tmp_path / "c.zip"), tmp_path, stop):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.zip"]


HOSTILE: list[tuple[str, Callable[[Path], Path], str]] = [
    ("upwards", lambda p: pack_members(p, ("../evil.png", b"x")), "leaves"),
    ("upwards inside", lambda p: pack_members(p, ("a/../../evil.png", b"x")), "leaves"),
    ("backslashes", lambda p: pack_members(p, ("..\\evil.png", b"x")), "leaves"),
    ("absolute", lambda p: pack_members(p, ("/evil.png", b"x")), "leaves"),
    ("drive", lambda p: pack_members(p, ("C:/evil.png", b"x")), "leaves"),
    ("link", lambda p: pack_members(p, ("a.png", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "link"),
    ("device", lambda p: pack_members(p, ("a.png", b""), mode=stat.S_IFCHR | 0o666), "special file"),
    ("case collision", lambda p: pack_members(p, ("a.png", b"x"), ("A.PNG", b"y")), "one name"),
    ("file and folder", lambda p: pack_members(p, ("a", b"x"), ("a/b.png", b"y")), "a file and a folder"),
    ("no name", lambda p: pack_members(p, (".", b"x")), "a file and a folder"),
    ("long name", lambda p: pack_members(p, ("n" * 300, b"x")), "too long"),
    ("deep name", lambda p: pack_members(p, ("a/" * 40 + "b", b"x")), "too long"),
    ("bomb", lambda p: pack_members(p, ("a.npy", bytes(65 * 2**20))), "zip bomb"),
]


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_archives_are_refused(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    room = tmp_path / "room"
    room.mkdir()
    archive = make(tmp_path / "c.zip")
    with pytest.raises(BadInput, match=words), open_source(archive, room):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.zip", "room"]
    assert not list(room.iterdir())


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = pack_members(tmp_path / "c.zip", ("a.png", b"x"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    archive.write_bytes(data)
    with pytest.raises(BadInput, match="encrypted"):
        extract(archive, tmp_path / "out")


def test_a_member_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    """The directory says 10 bytes, the data are 10 MiB of zeros: refused, and never written out."""
    archive = pack_members(tmp_path / "c.zip", ("a.npy", bytes(10 * 2**20)))
    data = bytearray(archive.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(BadInput, match="broken zip"):
        extract(archive, tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) <= 10


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_broken_archives_are_refused(tmp_path: Path, keep: float) -> None:
    data = pack(make_posed(tmp_path / "c"), tmp_path / "c.zip").read_bytes()
    (tmp_path / "c.zip").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BadInput, match="broken zip"):
        extract(tmp_path / "c.zip", tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_member_is_refused(tmp_path: Path, method: int) -> None:
    noise = np.random.default_rng(0).integers(0, 50, 20_000, dtype=np.uint8).tobytes()
    archive = pack_members(tmp_path / "c.zip", ("a.png", noise), method=method)
    data = bytearray(archive.read_bytes())
    data[5000:5100] = bytes(100)
    archive.write_bytes(data)
    with pytest.raises(BadInput, match=r"damaged|broken"):
        extract(archive, tmp_path / "out")


def test_a_start_that_lies_before_the_file_is_refused(tmp_path: Path) -> None:
    archive = pack_members(tmp_path / "c.zip", ("a.png", b"x"))
    data = bytearray(archive.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (end + 1).to_bytes(4, "little")  # where the directory begins
    archive.write_bytes(data)
    with pytest.raises(BadInput, match="broken zip"):
        extract(archive, tmp_path / "out")


def test_a_disk_that_takes_no_more_is_not_the_archives_fault(tmp_path: Path) -> None:
    archive = pack_members(tmp_path / "c.zip", ("a.png", bytes(20_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            extract(archive, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("limit", "value"), [("MAX_MEMBERS", 3), ("MAX_UNPACKED_BYTES", 1000)])
def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(archive_module, limit, value)
    with pytest.raises(BadInput, match="more than"):
        extract(pack(make_posed(tmp_path / "c"), tmp_path / "c.zip"), tmp_path / "out")


def test_a_file_is_a_zip_by_its_beginning(tmp_path: Path) -> None:
    archive = pack_members(tmp_path / "c.bin", ("a", b"x"))
    assert is_zip(archive)
    archive.write_bytes(b"video" + archive.read_bytes())
    assert not is_zip(archive)
