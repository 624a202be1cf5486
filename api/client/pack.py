"""A capture folder as one zip file that holds only what belongs to the capture."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dpdy_core.errors import BadInput

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".exr"}
ARRAYS = {".npy", ".npz", ".bin", ".ply", ".depth", ".conf"}
TEXTS = {".json", ".txt", ".csv"}
FRAME_FILES = ("file_path", "depth_file_path", "mask_path", "motion_mask_path", "covisible_path")


def capture_files(folder: Path) -> list[Path]:
    """The files of a capture folder, relative to it, sorted.

    With a `transforms.json`: that file and all it names. Otherwise (COLMAP, DyCheck, Record3D, Polycam, frames): all
    pictures, arrays and texts except hidden ones. Raises BadInput for a named file that is missing or outside.
    """
    document = folder / "transforms.json"
    if document.is_file():
        return sorted({Path("transforms.json"), *_named_files(folder, document)})
    metadata = ["metadata"] if (folder / "metadata").is_file() else []  # Record3D's has no suffix
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    kept = [path for path in found if _belongs(path)] + [Path(name) for name in metadata]
    if not kept:
        raise BadInput(f"{folder} holds no pictures", "give a video file or a folder of frames (see `dpdy inspect`)")
    return sorted(kept)


def pack_folder(folder: Path, archive: Path) -> int:
    """Write the capture in `folder` as a zip to `archive`; returns the number of files."""
    files = capture_files(folder)
    with zipfile.ZipFile(archive, "w", strict_timestamps=False) as bundle:
        for path in files:
            # pictures are compressed already: packing them again costs time and wins nothing
            method = zipfile.ZIP_STORED if path.suffix.lower() in PICTURES else zipfile.ZIP_DEFLATED
            bundle.write(folder / path, path.as_posix(), compress_type=method)
    return len(files)


def _belongs(path: Path) -> bool:
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return not hidden and path.suffix.lower() in PICTURES | ARRAYS | TEXTS


def _named_files(folder: Path, document: Path) -> Iterable[Path]:
    try:
        transforms = json.loads(document.read_text(encoding="utf-8"))
        frames: list[dict[str, Any]] = transforms["frames"]
        names = [str(frame[key]) for frame in frames for key in FRAME_FILES if frame.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{document} is not a transforms.json: {error}", "see docs: captures") from error
    if isinstance(transforms.get("ply_file_path"), str):
        names.append(transforms["ply_file_path"])
    for name in names:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise BadInput(f"{document} names {name!r}, which is outside the folder", "keep all files in the folder")
        yield _existing(folder, path)


def _existing(folder: Path, path: Path) -> Path:
    for candidate in (path, *(path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg"))):
        if (folder / candidate).is_file():
            return candidate
    raise BadInput(f"{folder / 'transforms.json'} names {str(path)!r}, which does not exist", "restore the file")
