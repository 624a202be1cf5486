"""Reader of LLFF captures (`poses_bounds.npy`) and of the NVIDIA dynamic scenes as NSFF ships them. Torch-free.

Each of the N rows holds a 3x5 matrix [R | t | (height, width, focal)], whose rotation has the columns [down, right,
backwards] (LLFF, "Using your own poses"), then the near and far depth of the view; the rows belong to the images in the
order of their names. Intrinsics are those of the size in the row; the images may be scaled copies.

The dynamic scenes were filmed by 12 fixed cameras; the moving camera of the literature is camera t mod 12 at time t
(Yoon et al. 2020; NSFF `nsff_exp/evaluation.py`). `mv_images/00003/cam01.jpg` is what the first camera saw at time 3,
and is kept for testing at all times at which it was not the moving camera (the fixed view of Gao et al. 2021).
"""

from pathlib import Path

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.frames import MAX_FRAMES, SourceCapture, SourceFrame, image_sizes, inside, list_images, same_shape
from dpdy_core.ingest.images import image_size, is_lossless
from dpdy_core.ingest.lens import Lens, checked_lens
from dpdy_core.ingest.maps import check_mask
from dpdy_core.ingest.pose import read_pose

POSES = "poses_bounds.npy"
CAMERAS = 12  # of the NVIDIA rig

_REMEDY = "give the N x 17 float array that LLFF's imgs2poses.py writes"
_SHAPE_TOLERANCE = 0.02


def read_llff(root: Path) -> SourceCapture:
    """The capture in `root`, every file, number and header checked. Raises BadInput."""
    rows = _rows(inside(root, POSES, "the capture"))
    images = _images(root, len(rows))
    fixed = _fixed_views(root, len(rows))
    size, sizes = image_sizes(images + [path for _, path in fixed])
    last = len(rows) - 1
    warnings: list[str] = []
    masks = _beside(root, "motion_masks", ".png", len(rows), warnings)
    maps = _beside(root, "disp", ".npy", len(rows), warnings)
    disparity = [None if path is None else DepthMap(path) for path in maps]
    frames = [
        SourceFrame(
            name=image.relative_to(root).as_posix(),
            image=image,
            time=index / last,
            split="train" if fixed else None,
            pose=_pose(rows[index], f"row {index} of {POSES}"),
            lens=_lens(rows[index], own, f"row {index} of {POSES}"),
            size=own,
            motion_mask=masks[index],
            depth=disparity[index],
        )
        for index, (image, own) in enumerate(zip(images, sizes[: len(images)], strict=True))
    ]
    for frame, own in zip(frames, sizes, strict=False):
        if frame.motion_mask is not None:
            check_mask(frame.motion_mask, own)
        if frame.depth is not None:
            frame.depth.check(own)
    frames += [
        SourceFrame(
            name=path.relative_to(root).as_posix(),
            image=path,
            time=index / last,
            split="test",
            pose=frames[0].pose,
            lens=_lens(rows[0], own, f"row 0 of {POSES}"),
            size=own,
            motion_mask=_fixed_mask(root, path, own),
        )
        for (index, path), own in zip(fixed, sizes[len(images) :], strict=True)
    ]
    return SourceCapture(
        kind="nvidia" if fixed else "llff",
        frames=frames,
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in images),
        depth_unit=1.0,
        depth_kind="relative_disparity",
        facts=_depth_range(rows, warnings),
        warnings=warnings,
    )


def _rows(path: Path) -> np.ndarray:
    """(N, 17) float64."""
    try:
        with np.errstate(over="ignore"):
            stored = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a lying header cannot ask for memory
    except Exception as error:  # a header is parsed as Python: it can fail in any way
        raise BadInput(f"{POSES} is not an array that can be read ({str(error)[:100]})", _REMEDY) from error
    if not isinstance(stored, np.ndarray) or stored.dtype.kind != "f" or stored.ndim != 2 or stored.shape[1] != 17:
        raise BadInput(f"{POSES} is not an N x 17 array of floats", _REMEDY)
    if not 2 <= len(stored) <= MAX_FRAMES:
        raise BadInput(f"{POSES} has {len(stored)} rows; 2 to {MAX_FRAMES} can be used", _REMEDY)
    rows = np.array(stored, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise BadInput(f"row {bad[0]} of {POSES} has NaN or infinite entries", "leave out frames without a pose")
    return rows


def _depth_range(rows: np.ndarray, warnings: list[str]) -> dict[str, list[float]]:
    """Near and far of the clip, a twentieth of the views left out at either end (as NSFF's `no_ndc` does)."""
    near, far = float(np.percentile(rows[:, 15], 5)), float(np.percentile(rows[:, 16], 95))
    if 0 < near < far:
        return {"depth_range": [near, far]}
    warnings.append(f"the near and far depths of {POSES} ({near:g}, {far:g}) cannot be and are left out")
    return {}


def _images(root: Path, count: int) -> list[Path]:
    """The images in the order of their names: those of `images`, else of the largest scaled copy, if they fit."""
    folders = [p for p in root.iterdir() if p.is_dir() and (p.name == "images" or p.name.startswith("images_"))]
    listed = {folder: sorted(list_images(folder), key=lambda path: path.name) for folder in folders}
    fitting = [folder for folder, images in listed.items() if len(images) == count]
    if not fitting:
        found = ", ".join(f"{folder.name}: {len(images)}" for folder, images in listed.items()) or "none"
        raise BadInput(
            f"{POSES} has {count} rows but no folder of images has as many ({found})",
            "put the images that the poses belong to into images/, and no others",
        )
    for folder in fitting:
        for path in listed[folder]:
            inside(root, path.relative_to(root).as_posix(), f"the folder {folder.name}")
    whole = root / "images"
    chosen = whole if whole in fitting else max(fitting, key=lambda f: (image_size(listed[f][0], False)[0], f.name))
    return listed[chosen]


def _beside(root: Path, folder: str, suffix: str, count: int, warnings: list[str]) -> list[Path | None]:
    """The maps in `folder` in the order of their names, one a frame; none of them if their number differs."""
    where = root / folder
    names = sorted(p.name for p in where.iterdir() if p.suffix.lower() == suffix) if where.is_dir() else []
    if names and len(names) != count:
        warnings.append(f"{folder} holds {len(names)} maps for {count} frames: they are left out")
    if len(names) != count:
        return [None] * count
    return [inside(root, f"{folder}/{name}", folder) for name in names]


def _fixed_views(root: Path, count: int) -> list[tuple[int, Path]]:
    """Time and image of what the first camera of the rig saw while another was the moving one."""
    views = []
    for index in range(count):
        written = f"mv_images/{index:05d}/cam01.jpg"
        if index % CAMERAS and (root / written).is_file():
            views.append((index, inside(root, written, "mv_images")))
    return views


def _fixed_mask(root: Path, image: Path, size: tuple[int, int]) -> Path | None:
    written = f"mv_masks/{image.parent.name}/cam01.png"
    if not (root / written).is_file():
        return None
    path = inside(root, written, "mv_masks")
    check_mask(path, size)
    return path


def _pose(row: np.ndarray, where: str) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world."""
    down, right, backwards, place = row[:15].reshape(3, 5).T[:4]
    return read_pose(np.column_stack([right, -down, backwards, place]), f"the pose in {where}", _REMEDY)


def _lens(row: np.ndarray, size: tuple[int, int], where: str) -> Lens:
    height, width, focal = row[:15].reshape(3, 5)[:, 4]
    if not (16 <= height < 1e5 and 16 <= width < 1e5) or not same_shape(
        size, (round(width), round(height)), _SHAPE_TOLERANCE
    ):
        raise BadInput(
            f"{where} speaks of {width:g}x{height:g} pixels but its image has {size[0]}x{size[1]}, another shape",
            "give the images that the poses were made from, or scaled copies of them",
        )
    lens = Lens(focal * size[0] / width, focal * size[1] / height, size[0] / 2, size[1] / 2)
    return checked_lens(lens, *size, where)
