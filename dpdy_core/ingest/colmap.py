"""Reader of COLMAP models with their images: cameras, poses and sparse points. Torch-free.

The model lies in `sparse/0`, `sparse`, or in the folder itself; the images in `images` (or a scaled copy of it), or
beside the model. As 3D Gaussian splatting has it, `test.txt` in the model's folder names the images kept for testing.
Beside it our `times.txt` has a line `TIME NAME` for each image; without it the names tell the times as far as they can.
"""

from pathlib import Path

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.colmap_model import ColmapCamera, ColmapImage, ColmapModel, is_model, read_model
from dpdy_core.ingest.frames import SourceCapture, SourceFrame, image_sizes, inside, list_images, same_shape
from dpdy_core.ingest.images import is_lossless, natural_key
from dpdy_core.ingest.lens import Lens, checked_lens
from dpdy_core.ingest.maps import check_mask
from dpdy_core.ingest.name_times import times_of_names
from dpdy_core.ingest.pose import from_opencv, read_pose

TEST_LIST = "test.txt"
TIME_LIST = "times.txt"

_PLACES = ("sparse", "colmap/sparse", ".")
_IMAGE_FOLDERS = ("images", "images_2", "images_4", "images_8", "input")
_QUATERNION_TOLERANCE = 0.01
_SHAPE_TOLERANCE = 0.02
_MAX_MODELS = 10
_MAX_LIST_BYTES = 16 * 2**20


def find_models(root: Path) -> list[Path]:
    """The folders in `root` that hold COLMAP models, `sparse/0` first."""
    for place in _PLACES:
        folder = root / place
        if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
            continue
        numbered = sorted(
            (p for p in folder.iterdir() if p.name.isdecimal() and is_model(p)), key=lambda p: int(p.name)
        )
        found = numbered[:_MAX_MODELS] if place != "." and numbered else [folder] if is_model(folder) else []
        if found:
            return found
    return []


def read_colmap(root: Path) -> SourceCapture:
    """The largest COLMAP model in `root` and its images, everything checked. Raises BadInput."""
    warnings: list[str] = []
    place, model = _largest(_checked(root, find_models(root)), warnings)
    images = sorted(model.images, key=lambda image: natural_key(image.name))
    names = [image.name for image in images]
    if len(names) < 2:
        raise BadInput(
            f"the COLMAP model has {len(names)} registered image(s)", "at least 2 are needed, better 20 or more"
        )
    if len(set(names)) < len(names):
        raise BadInput("the COLMAP model lists an image's name twice", "give every image a name of its own")
    beside = _image_folder(root, names[0])
    paths = [inside(root, beside + name, f"image {name!r} of the COLMAP model") for name in names]
    left_out = len(list_images(paths[0].parent)) - sum(path.parent == paths[0].parent for path in paths)
    if left_out > 0:
        warnings.append(f"{left_out} images are not in the COLMAP model (not registered) and are left out")
    size, sizes = image_sizes(paths)
    times = _given_times(place, names)
    tests = _test_names(place, names)
    seen, xyz = _points(model, images)
    frames = [
        SourceFrame(
            name=image.name,
            image=path,
            time=float(time),
            split=None if tests is None else "test" if image.name in tests else "train",
            pose=_pose(image),
            lens=_lens(_camera_of(model, image), own, f"camera {image.camera} of the COLMAP model"),
            size=own,
            mask=_mask(root, image.name, own),
            points=points,
        )
        for image, path, time, own, points in zip(images, paths, times, sizes, seen, strict=True)
    ]
    return SourceCapture(
        kind="colmap",
        frames=sorted(frames, key=lambda frame: frame.time),
        width=size[0],
        height=size[1],
        upright=False,
        lossless=all(is_lossless(path) for path in paths),
        points=xyz,
        warnings=warnings,
    )


def _checked(root: Path, folders: list[Path]) -> list[Path]:
    """`folders`, unless one of their files is a link that leaves `root`."""
    for folder in folders:
        for path in folder.iterdir():
            if path.suffix in (".bin", ".txt"):
                inside(root, path.relative_to(root).as_posix(), "the COLMAP model")
    return folders


def _largest(folders: list[Path], warnings: list[str]) -> tuple[Path, ColmapModel]:
    models = [(folder, read_model(folder)) for folder in folders]  # links out of the capture were refused
    chosen = max(models, key=lambda entry: len(entry[1].images))
    if len(models) > 1:
        counts = ", ".join(f"{folder.name}: {len(model.images)}" for folder, model in models)
        warnings.append(f"there are {len(models)} COLMAP models ({counts} images); {chosen[0].name} is taken")
    return chosen


def _image_folder(root: Path, name: str) -> str:
    """What to put before the images' names, seen from `root`."""
    for folder in _IMAGE_FOLDERS:
        try:
            inside(root, f"{folder}/{name}", "")
        except BadInput:
            continue
        return f"{folder}/"
    return "" if not (root / "images").is_dir() else "images/"


def _lines(path: Path) -> list[str]:
    if path.stat().st_size > _MAX_LIST_BYTES:
        raise BadInput(f"{path.name} is larger than {_MAX_LIST_BYTES // 2**20} MiB", "write a line for each image")
    return [line.strip() for line in path.read_bytes().decode("utf-8", "replace").splitlines()]


def _given_times(place: Path, names: list[str]) -> np.ndarray:
    """(T,) in [0, 1], of `times.txt` or of the names."""
    path = place / TIME_LIST
    if not path.is_file():
        return times_of_names(names)
    given: dict[str, float] = {}
    for time, _, name in (line.partition(" ") for line in _lines(path) if line):
        try:
            given[name.strip()] = float(time)
        except ValueError as error:
            raise BadInput(f"{TIME_LIST} has {time[:40]!r} for a time", "write lines of TIME NAME") from error
    lacking = [name for name in names if name not in given]
    if lacking:
        raise BadInput(f"{TIME_LIST} has no time for {lacking[0]!r}", "write a line for each image")
    times = np.array([given[name] for name in names])
    if not (np.isfinite(times).all() and 0 <= times.min() < times.max() <= 1):
        raise BadInput(f"the times in {TIME_LIST} do not run within 0 to 1", "scale them to 0 to 1 over the clip")
    return times


def _test_names(place: Path, names: list[str]) -> set[str] | None:
    """The images that `test.txt` keeps for testing, perhaps none, or None if there is no such list."""
    path = place / TEST_LIST
    if not path.is_file():
        return None
    listed = set(_lines(path)) & set(names)
    if len(listed) > len(names) - 2:
        raise BadInput(f"{TEST_LIST} names all images but {len(names) - len(listed)}", "leave at least 2 to train on")
    return listed


def _mask(root: Path, name: str, size: tuple[int, int]) -> Path | None:
    """COLMAP's own mask of an image (ImageReader.mask_path): its name with .png behind, 0 = ignore."""
    if not (root / "masks" / f"{name}.png").is_file():
        return None
    path = inside(root, f"masks/{name}.png", f"the mask of image {name!r}")
    check_mask(path, size)
    return path


def _pose(image: ColmapImage) -> np.ndarray:
    """(4, 4) OpenGL camera-to-world."""
    what, remedy = f"the pose of image {image.name!r}", "export the COLMAP model again"
    w, x, y, z = image.rotation
    length = float(np.sqrt(w * w + x * x + y * y + z * z))
    if not abs(length - 1) < _QUATERNION_TOLERANCE:  # nor NaN
        raise BadInput(f"{what} has a rotation quaternion of length {length:.4g}, not 1", remedy)
    w, x, y, z = w / length, x / length, y / length, z / length
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    given = read_pose(np.column_stack([rotation, image.translation]), what, remedy)
    pose = np.eye(4)
    pose[:3] = from_opencv(given[:3, :3], -given[:3, :3].T @ given[:3, 3])
    return pose


def _camera_of(model: ColmapModel, image: ColmapImage) -> ColmapCamera:
    if image.camera not in model.cameras:
        raise BadInput(f"image {image.name!r} has camera {image.camera}, which is missing", "export the model again")
    return model.cameras[image.camera]


def _lens(camera: ColmapCamera, size: tuple[int, int], where: str) -> Lens:
    """The camera for an image of `size`, which may be a scaled copy of the one that COLMAP saw."""
    if not same_shape(size, (camera.width, camera.height), _SHAPE_TOLERANCE):
        raise BadInput(
            f"{where} has {camera.width}x{camera.height} pixels but its image {size[0]}x{size[1]}, another shape",
            "give the images that the model was made from, or scaled copies of them",
        )
    x, y = size[0] / camera.width, size[1] / camera.height
    focals = 1 if camera.model.startswith("SIMPLE_") or camera.model in ("RADIAL", "RADIAL_FISHEYE") else 2
    fl_x, fl_y = camera.parameters[0], camera.parameters[focals - 1]
    cx, cy, *k = camera.parameters[focals:]
    fisheye = "FISHEYE" in camera.model
    if fisheye:  # OpenCV's with as many coefficients as the model has
        distortion = (*k, *(4 - len(k)) * [0.0])
    elif camera.model == "FULL_OPENCV":  # in OpenCV's order
        distortion = tuple(k)
    else:  # k1 k2 p1 p2
        distortion = (*k, *(5 - len(k)) * [0.0])
    return checked_lens(Lens(fl_x * x, fl_y * y, cx * x, cy * y, distortion, fisheye), *size, where)


def _points(model: ColmapModel, images: list[ColmapImage]) -> tuple[list[np.ndarray], np.ndarray]:
    """Which points each image sees, as indices, and the points (P, 3)."""
    good = np.isfinite(model.xyz).all(axis=1)
    order = np.argsort(model.point_ids[good], kind="stable")
    ids, xyz = model.point_ids[good][order], model.xyz[good][order]
    seen = []
    for image in images:
        wanted = np.unique(image.points)
        index = np.searchsorted(ids, wanted)
        known = (index < len(ids)) & (ids[np.minimum(index, len(ids) - 1)] == wanted) if len(ids) else np.zeros(0, bool)
        seen.append(index[known] if len(ids) else np.zeros(0, np.int64))
    return seen, xyz
