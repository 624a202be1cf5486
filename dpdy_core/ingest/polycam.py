"""Reader of Polycam's raw exports: https://github.com/PolyCam/polyform (README.md). Torch-free.

Files of one moment share its time stamp in microseconds as their name. Poses have ARKit's axes: OpenGL
camera-to-world in a world with y up. Polycam's own optimised ("corrected") cameras and images are preferred.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.document import number, read_document
from dpdy_core.ingest.frames import MAX_FRAMES, SourceCapture, SourceFrame, common_size, inside, list_images
from dpdy_core.ingest.images import is_lossless, natural_key
from dpdy_core.ingest.lens import Lens, read_lens
from dpdy_core.ingest.pose import read_pose

_AGAIN = "export the raw data again from Polycam (developer mode on)"
_MICROSECONDS = 1e6


def is_polycam(folder: Path) -> bool:
    """Whether `folder` looks like a raw export, or like its `keyframes` folder."""
    keyframes = _keyframes(folder)
    return (keyframes / "images").is_dir() and _cameras(keyframes) is not None


def read_polycam(folder: Path) -> SourceCapture:
    """The raw export in `folder`; every camera is a frame; depth in metres without what ARKit does not trust.

    Raises BadInput.
    """
    keyframes = _keyframes(folder)
    cameras = _cameras(keyframes)
    if cameras is None:
        raise BadInput("the folder is no raw export of Polycam", _AGAIN)
    stems = sorted((p.stem for p in (keyframes / cameras).glob("*.json") if p.name[0] != "."), key=natural_key)
    if not 2 <= len(stems) <= MAX_FRAMES:
        raise BadInput(f"{cameras} holds {len(stems)} cameras; 2 to {MAX_FRAMES} can be used", _AGAIN)
    place, images = _images(keyframes, cameras, stems)
    size = common_size(images, upright=False)
    warnings: list[str] = []
    unposed = len(list_images(keyframes / place)) - len(images)
    if unposed > 0:
        warnings.append(f"{unposed} of {unposed + len(images)} images have no camera and are left out")
    times, fps = _times(stems, warnings)
    frames = []
    for stem, image, time in zip(stems, images, times, strict=True):
        where = f"{cameras}/{stem}.json"
        camera = read_document(inside(keyframes, where, f"camera {stem!r}"))
        depth = _depth(keyframes, cameras, stem)
        if depth is not None:
            depth.check(size)
        pose, lens = _pose(camera, where), _lens(camera, where, size)
        frames.append(SourceFrame(stem, image, float(time), pose=pose, lens=lens, depth=depth))
    return SourceCapture(
        kind="polycam",
        frames=frames,
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in images),
        fps=fps,
        depth_unit=0.001,
        warnings=warnings,
    )


def _keyframes(folder: Path) -> Path:
    found = folder / "keyframes"
    return found if found.is_dir() and found.resolve().is_relative_to(folder.resolve()) else folder


def _cameras(keyframes: Path) -> str | None:
    """The folder of cameras to use."""
    names = ("corrected_cameras", "cameras")
    return next(
        (name for name in names if (keyframes / name).is_dir() and any((keyframes / name).glob("*.json"))), None
    )


def _images(keyframes: Path, cameras: str, stems: list[str]) -> tuple[str, list[Path]]:
    """The folder of images that belong to the cameras, and the image of each."""
    corrected = cameras == "corrected_cameras" and (keyframes / "corrected_images").is_dir()
    place = "corrected_images" if corrected else "images"
    found = {path.stem: path.name for path in list_images(keyframes / place)}
    names = [found.get(stem, f"{stem}.jpg") for stem in stems]
    return place, [inside(keyframes, f"{place}/{name}", "a camera of the export") for name in names]


def _times(stems: list[str], warnings: list[str]) -> tuple[np.ndarray, float | None]:
    """(T,) times in [0, 1] and the mean rate, by the names."""
    if not all(stem.isdecimal() and len(stem) < 19 for stem in stems) or int(stems[0]) == int(stems[-1]):
        warnings.append("the files are not named after time stamps: their order is taken for time")
        return np.linspace(0, 1, len(stems)), None
    stamps = np.array([int(stem) for stem in stems], dtype=np.float64)
    span = stamps[-1] - stamps[0]
    fps = (len(stems) - 1) * _MICROSECONDS / span
    return (stamps - stamps[0]) / span, float(fps) if 0.05 < fps <= 1000 else None


def _pose(camera: dict[str, Any], where: str) -> np.ndarray:
    rows = [[number(camera.get(f"t_{i}{j}"), f"t_{i}{j}", where) for j in range(4)] for i in range(3)]
    return read_pose(rows, f"the pose in {where}", _AGAIN)


def _lens(camera: dict[str, Any], where: str, size: tuple[int, int]) -> Lens:
    for key, actual in zip(("width", "height"), size, strict=True):
        if camera.get(key) is not None and number(camera[key], key, where) != actual:
            raise BadInput(f"{where} says {key} {camera[key]:g} but the images have {size[0]}x{size[1]} pixels", _AGAIN)
    fx, fy, cx, cy = (number(camera.get(key), key, where) for key in ("fx", "fy", "cx", "cy"))
    lens = read_lens({"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}, *size, where)
    if lens is None:
        raise BadInput(f"{where} has no focal length", _AGAIN)
    return lens


def _depth(keyframes: Path, cameras: str, stem: str) -> DepthMap | None:
    places = ("corrected_depth", "depth") if cameras == "corrected_cameras" else ("depth",)
    name = next((n for place in places if (keyframes / (n := f"{place}/{stem}.png")).is_file()), None)
    if name is None:
        return None
    trust = f"confidence/{stem}.png"
    confidence = inside(keyframes, trust, trust) if (keyframes / trust).is_file() else None
    return DepthMap(inside(keyframes, name, name), confidence=confidence)
