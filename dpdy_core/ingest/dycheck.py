"""Reader of DyCheck and Nerfies sequences: https://github.com/KAIR-BAIR/dycheck (docs/DATASETS.md). Torch-free.

One JSON camera a frame at full resolution, images at factors of it, times as integer warp ids. Val frames become test
frames; only the frames that the splits name exist: there is no grid of cameras and times.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.document import number, numbers, read_document, read_list
from dpdy_core.ingest.frames import MAX_FRAMES, SourceCapture, SourceFrame, common_size, inside
from dpdy_core.ingest.images import is_lossless
from dpdy_core.ingest.lens import Lens, read_lens
from dpdy_core.ingest.maps import check_mask
from dpdy_core.ingest.pose import from_opencv, read_pose

MOST_KEYPOINTS = 1000
EVALUATED_FACTOR = 2  # of the iPhone sequences: DEFAULT_FACTOR of dycheck/datasets/iphone.py

_SPLITS = (("train", "val"), ("train_mono", "val_mono"))  # Nerfies' camera does not jump in the second
_CAMERA_REMEDY = "orientation is the 3x3 world-to-camera rotation with OpenCV axes, position the camera's centre"


@dataclass(frozen=True)
class _Scene:
    """Frame ids by split, and how the sequence is normalised."""

    folder: Path
    train: list[str]
    val: list[str]
    val_split: str
    factor: int
    centre: np.ndarray  # (3,) world units
    scale: float

    def map(self, place: str, name: str) -> str:
        return f"{place}/{self.factor}x/{name}"


def is_dycheck(folder: Path) -> bool:
    """Whether `folder` looks like a sequence."""
    return (folder / "dataset.json").is_file() and (folder / "camera").is_dir()


def read_dycheck(folder: Path) -> SourceCapture:
    """The sequence in `folder`, in its normalised units: (position - center) * scale, depth * scale. Raises BadInput.

    The alpha of the images is the loss mask; depth on disk is planar, in metres. Images come at the factor that
    `extra.json` says, else 2, as the benchmark evaluates. Sequences without val frames have no splits.
    """
    scene, extra = _scene(folder)
    names = scene.train + scene.val
    images = [inside(folder, scene.map("rgb", f"{name}.png"), f"the image of frame {name!r}") for name in names]
    size = common_size(images, upright=False)
    warnings: list[str] = []
    times = _times(scene, warnings)
    held_out = set(scene.val)
    frames = [
        _frame(scene, name, image, times[name], size, name in held_out)
        for name, image in zip(names, images, strict=True)
    ]
    seen = sum(frame.covisible is not None for frame in frames)
    if 0 < seen < len(scene.val):
        warnings.append(f"{len(scene.val) - seen} of {len(scene.val)} val frames have no covisible mask")
    if len({len(frame.keypoints) for frame in frames if frame.keypoints is not None}) > 1:
        raise BadInput("frames have different numbers of keypoints", "give every point in every annotated frame")
    fps = None if extra.get("fps") is None else number(extra["fps"], "fps", "extra.json")
    if fps is not None and not 0 < fps <= 1000:
        raise BadInput(f"fps of extra.json is {fps:g}", "give the frames per second of the sequence")
    facts = {"factor": scene.factor, "scene_center": scene.centre.tolist(), "scene_scale": scene.scale}
    return SourceCapture(
        kind="dycheck",
        frames=frames,
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in images),
        fps=fps,
        depth_unit=scene.scale,
        alpha_is_mask=True,
        facts={"dycheck": facts},
        warnings=warnings,
    )


def _scene(folder: Path) -> tuple[_Scene, dict[str, Any]]:
    """The sequence's layout and its `extra.json` (empty if missing)."""
    extra = _optional(folder, "extra.json")
    normal = _optional(folder, "scene.json")
    train, val, val_split = _splits(folder)
    scale = number(normal.get("scale", 1.0), "scale", "scene.json")
    if not 1e-6 < scale < 1e6:
        raise BadInput(f"scale of scene.json is {scale:g}", "give the factor that brings the scene to unit size")
    centre = np.array(numbers(normal.get("center", [0, 0, 0]), 3, "center", "scene.json"))
    return _Scene(folder, train, val, val_split, _factor(folder, extra), centre, scale), extra


def _optional(folder: Path, name: str) -> dict[str, Any]:
    return read_document(inside(folder, name, name)) if (folder / name).is_file() else {}


def _splits(folder: Path) -> tuple[list[str], list[str], str]:
    """Ids of the training and the val frames, and the name of the val split."""
    dataset = read_document(inside(folder, "dataset.json", "dataset.json"))
    ids = _names(dataset.get("ids"), "ids of dataset.json")
    train, val, chosen = (
        _names(dataset.get("train_ids", ids), "train_ids of dataset.json"),
        dataset.get("val_ids"),
        "val",
    )
    val = _names(val or [], "val_ids of dataset.json")
    for training, held_out in _SPLITS:
        if (folder / "splits" / f"{training}.json").is_file():
            train, chosen = _split(folder, training), held_out
            val = _split(folder, held_out) if (folder / "splits" / f"{held_out}.json").is_file() else []
            break
    known, held = set(ids), set(val)
    for name in train + val:
        if name not in known:
            raise BadInput(f"the splits name {name[:80]!r}, which is not in dataset.json", "list it under `ids`")
    for name in train:
        if name in held:
            raise BadInput(f"frame {name!r} is in both splits", "training must not see val frames: take it out of one")
    if len(train) < 2 or len(train) + len(val) > MAX_FRAMES:
        raise BadInput(
            f"the sequence gives {len(train)} training and {len(val)} val frames",
            f"at least 2 training frames are needed, and at most {MAX_FRAMES} in all can be used",
        )
    return train, val, chosen


def _split(folder: Path, split: str) -> list[str]:
    """The frame ids of one file in `splits/`."""
    where = f"splits/{split}.json"
    document = read_document(inside(folder, where, where))
    names = _names(document.get("frame_names"), f"frame_names of {where}")
    for key in ("camera_ids", "time_ids"):
        parallel = document.get(key, names)
        if not isinstance(parallel, list) or len(parallel) != len(names):
            raise BadInput(f"{key} of {where} is not a list of {len(names)} ids", "the three lists are parallel")
    return names


def _names(written: object, what: str) -> list[str]:
    if not isinstance(written, list) or not all(isinstance(name, str) for name in written):
        raise BadInput(f"{what} is not a list of frame ids", "see the Nerfies data format")
    if len(set(written)) < len(written):
        raise BadInput(f"{what} names a frame twice", "list every frame once")
    return written


def _factor(folder: Path, extra: dict[str, Any]) -> int:
    """The downsampling factor of the images to use: extra.json's, else 2, else the smallest there is."""
    found = {int(p.name[:-1]) for p in folder.glob("rgb/*x") if p.name[:-1].isdecimal() and len(p.name) < 5}
    wanted = [EVALUATED_FACTOR, *sorted(found)]
    if extra.get("factor") is not None:
        wanted.insert(0, int(number(extra["factor"], "factor", "extra.json")))
    chosen = next((factor for factor in wanted if factor in found and factor > 0), None)
    if chosen is None:
        raise BadInput("the sequence has no images", "put them in rgb/1x or rgb/2x as <id>.png")
    return chosen


def _times(scene: _Scene, warnings: list[str]) -> dict[str, float]:
    """Each frame's time: its warp id, 0 at the first and 1 at the last of the training frames."""
    metadata = read_document(inside(scene.folder, "metadata.json", "metadata.json"))
    ids: dict[str, float] = {}
    for name in scene.train + scene.val:
        entry = metadata.get(name)
        if not isinstance(entry, dict):
            raise BadInput(f"metadata.json has no entry for frame {name!r}", "give its warp_id and camera_id")
        warp = entry.get("warp_id", entry.get("time_id"))
        ids[name] = number(warp, "warp_id", f"frame {name!r} in metadata.json")
    training = [ids[name] for name in scene.train]
    first, last = min(training), max(training)
    if first == last:
        raise BadInput("all training frames have the same warp_id", "the warp_id is the time: give each moment its own")
    outside = sum(not first <= ids[name] <= last for name in scene.val)
    if outside:
        warnings.append(
            f"{outside} of {len(scene.val)} val frames lie before the first or after the last training frame"
        )
        first, last = min(ids.values()), max(ids.values())
    return {name: (warp - first) / (last - first) for name, warp in ids.items()}


def _frame(scene: _Scene, name: str, image: Path, time: float, size: tuple[int, int], held_out: bool) -> SourceFrame:
    where = f"camera/{name}.json"
    camera = read_document(inside(scene.folder, where, f"the camera of frame {name!r}"))
    depth = _existing(scene, scene.map("depth", f"{name}.npy"))
    covisible = _existing(scene, scene.map("covisible", f"{scene.val_split}/{name}.png")) if held_out else None
    depth_map = None if depth is None else DepthMap(depth)
    if depth_map is not None:
        depth_map.check(size)
    if covisible is not None:
        check_mask(covisible, size)
    annotated = None if held_out else _existing(scene, scene.map("keypoint", f"train/{name}.json"))
    return SourceFrame(
        name=name,
        image=image,
        time=time,
        split=None if not scene.val else "test" if held_out else "train",
        pose=_pose(scene, camera, where),
        lens=_lens(scene, camera, where, size),
        depth=depth_map,
        covisible=covisible,
        keypoints=None if annotated is None else _keypoints(annotated),
    )


def _keypoints(path: Path) -> np.ndarray:
    """(J, 3) x and y in pixels of the image, and 1 where the point is seen, else 0."""
    where = f"keypoint/{path.name}"
    points = [numbers(row, 3, f"point {place}", where) for place, row in enumerate(read_list(path))]
    if not 0 < len(points) <= MOST_KEYPOINTS:
        raise BadInput(f"{where} has {len(points)} points", f"give 1 to {MOST_KEYPOINTS} rows of x, y, visible")
    return np.array(points)


def _existing(scene: _Scene, relative: str) -> Path | None:
    return inside(scene.folder, relative, relative) if (scene.folder / relative).is_file() else None


def _pose(scene: _Scene, camera: dict[str, Any], where: str) -> np.ndarray:
    rows = camera.get("orientation")
    if not isinstance(rows, list) or len(rows) != 3:
        raise BadInput(f"orientation of {where} is not a 3x3 matrix", _CAMERA_REMEDY)
    orientation = np.array([numbers(row, 3, "orientation", where) for row in rows])
    position = np.array(numbers(camera.get("position"), 3, "position", where))
    matrix = from_opencv(orientation, (position - scene.centre) * scene.scale)
    return read_pose(matrix, f"the pose in {where}", _CAMERA_REMEDY)


def _lens(scene: _Scene, camera: dict[str, Any], where: str, size: tuple[int, int]) -> Lens:
    """The intrinsics of the image of `size`, which has 1 / factor of the camera's own resolution."""

    def get(key: str, default: float) -> float:
        return number(camera.get(key, default), key, where)

    full = numbers(camera.get("image_size"), 2, "image_size", where)
    if any(abs(whole / scene.factor - actual) > 1 for whole, actual in zip(full, size, strict=True)):
        raise BadInput(
            f"{where} says image_size {full[0]:g}x{full[1]:g}, of which {scene.factor}x is not {size[0]}x{size[1]}",
            "cameras are stored at full resolution; rgb/<factor>x holds the images divided by the factor",
        )
    focal, skew = get("focal_length", 0.0), get("skew", 0.0)
    if abs(skew) > 1e-6 * abs(focal):
        raise BadInput(f"{where} has skew {skew:g}, which is not supported", "rectify the images first")
    cx, cy = numbers(camera.get("principal_point"), 2, "principal_point", where)
    k1, k2, k3 = numbers(camera.get("radial_distortion", [0, 0, 0]), 3, "radial_distortion", where)
    tangential = camera.get("tangential", camera.get("tangential_distortion", [0, 0]))  # the first is the old name
    p1, p2 = numbers(tangential, 2, "tangential_distortion", where)
    values = {
        "fl_x": focal / scene.factor,
        "fl_y": focal * get("pixel_aspect_ratio", 1.0) / scene.factor,
        "cx": cx / scene.factor,
        "cy": cy / scene.factor,
        **{"k1": k1, "k2": k2, "p1": p1, "p2": p2, "k3": k3},
    }
    lens = read_lens(values, *size, where)
    if lens is None or values["fl_x"] <= 0 or values["fl_y"] <= 0:
        raise BadInput(f"{where} has no focal length", "give focal_length in pixels of the full image")
    return lens
