"""What kind of capture a path is, by content: the one place where readers are chosen. Torch-free."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpdy_core.errors import BadInput
from dpdy_core.ingest.archive import extract, is_zip
from dpdy_core.ingest.colmap import find_models, read_colmap
from dpdy_core.ingest.dycheck import is_dycheck, read_dycheck
from dpdy_core.ingest.frames import SourceCapture, list_images, read_image_folder
from dpdy_core.ingest.llff import POSES, read_llff
from dpdy_core.ingest.nerfstudio import TRANSFORMS, read_nerfstudio
from dpdy_core.ingest.polycam import is_polycam, read_polycam
from dpdy_core.ingest.record3d import is_record3d, read_record3d
from dpdy_core.ingest.video import VIDEO_SUFFIXES, Video, probe_video

MAX_FILES = 200_000
_ACCEPTED = (
    "give a video (mp4, mov, webm, mkv), or a folder or zip of frames, of a nerfstudio capture, of a COLMAP model with"
    " its images, of an LLFF capture, of a DyCheck sequence, of a Record3D export or of Polycam's raw data"
)


@contextmanager
def open_source(
    path: Path, scratch: Path | None = None, check: Callable[[], None] | None = None
) -> Iterator[Video | SourceCapture]:
    """The capture at `path`, probed and checked. Raises BadInput.

    A zip is unpacked into a fresh folder inside `scratch` (None: the system's temporary folder) that is gone when the
    block ends. `check` is called now and then meanwhile and may raise to stop.
    """
    if path.is_dir():
        yield _read_folder(path)
        return
    if not path.is_file():
        raise BadInput(f"{path} does not exist" if not path.exists() else f"{path} is not a file or folder", _ACCEPTED)
    if path.stat().st_size == 0:
        raise BadInput(f"{path.name} is empty (0 bytes)", "copy or upload it again")
    if not is_zip(path):
        yield probe_video(path)
        return
    with tempfile.TemporaryDirectory(prefix=".unpacked.", dir=scratch) as unpacked:
        extract(path, Path(unpacked), check)
        yield _read_folder(Path(unpacked))


def _check_links(folder: Path) -> None:
    """Raise BadInput for a link that leaves `folder`, wherever below it: no reader has to think of links."""
    top, seen = os.path.realpath(folder), 0
    for place, folders, files in os.walk(top):
        seen += len(folders) + len(files)
        if seen > MAX_FILES:
            raise BadInput(f"the folder holds more than {MAX_FILES} files", "give the folder of one capture")
        for path in (os.path.join(place, name) for name in (*folders, *files)):  # noqa: PTH118  # quick: names only
            if os.path.islink(path) and not os.path.realpath(path).startswith(top + os.sep):  # noqa: PTH114
                name = os.path.relpath(path, top)
                raise BadInput(f"the folder holds {name!r}, a link that leaves it", "copy what it points to")


def _read_folder(folder: Path) -> SourceCapture:
    _check_links(folder)
    roots = (folder, *_only_child(folder))
    for root in roots:
        if (reader := _reader(root)) is not None:
            return reader(root)
        if (root / "images").is_dir() and list_images(root / "images"):
            return read_image_folder(root / "images")
    videos = [p.name for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        raise BadInput(f"the folder holds a video ({videos[0]}) but no frames", "give the video file itself")
    what = "nothing that can be used" if any(folder.iterdir()) else "nothing: it is empty"
    raise BadInput(f"the folder holds {what} (no {TRANSFORMS}, no images)", _ACCEPTED)


def _reader(root: Path) -> Callable[[Path], SourceCapture] | None:
    """The reader of the format that the files in `root` speak of."""
    if (root / TRANSFORMS).is_file():
        return read_nerfstudio
    if is_dycheck(root):
        return read_dycheck
    if (root / POSES).is_file():
        return read_llff
    if find_models(root):
        return read_colmap
    if is_record3d(root):
        return read_record3d
    if is_polycam(root):
        return read_polycam
    return read_image_folder if list_images(root) else None


def _only_child(folder: Path) -> list[Path]:
    """The one sub-folder, if there is one only and it is not a link out of `folder`."""
    children = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))]
    inside = [p for p in children if p.resolve().is_relative_to(folder.resolve())]
    return inside if len(children) == 1 else []
