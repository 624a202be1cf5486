"""A capture as a reader found it, checked, before anything is decoded: still frames with what is known of each.

Every reader of a capture format is a function `(folder) -> SourceCapture` in a file of its own, named after the
format and called by `source.py`. Torch-free.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.ingest.depth_map import DepthMap
from dpdy_core.ingest.images import IMAGE_SUFFIXES, image_size, is_lossless, natural_key, read_rgb
from dpdy_core.ingest.lens import Lens

MAX_FRAMES = 20_000
_SHAPE_TOLERANCE = 0.1  # images of one lens, undistorted one by one, differ by a few per cent


@dataclass(frozen=True)
class SourceFrame:
    """One still image. Files exist and lie inside the capture."""

    name: str  # as the capture names it
    image: Path
    time: float  # in [0, 1]
    split: Literal["train", "val", "test"] | None = None  # None: the capture has no splits
    pose: np.ndarray | None = None  # (4, 4) OpenGL camera-to-world
    lens: Lens | None = None
    size: tuple[int, int] | None = None  # width and height of its image; None: the capture's
    depth: DepthMap | None = None
    mask: Path | None = None  # 0 = ignore
    motion_mask: Path | None = None  # 255 = moving
    covisible: Path | None = None  # 255 = seen by enough training frames
    points: np.ndarray | None = None  # (K,) which of the capture's points it sees
    keypoints: np.ndarray | None = None  # (J, 3) x, y in pixels and 1 where seen, else 0: for scores alone


@dataclass(frozen=True)
class SourceCapture:
    """Frames of one shape; where an image has another size than the capture, the frame says so."""

    kind: str
    frames: list[SourceFrame]
    width: int
    height: int
    upright: bool  # whether the EXIF orientation of the images counts
    lossless: bool
    fps: float | None = None
    depth_unit: float = 0.001
    depth_kind: str = "metric"
    alpha_is_mask: bool = False  # transparent pixels are to be ignored in training
    facts: dict[str, Any] = field(default_factory=dict)  # JSON that the canonical document keeps
    points: np.ndarray | None = None  # (P, 3) sparse static points in the world of the poses
    warnings: list[str] = field(default_factory=list)

    def picture(self, frame: SourceFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB of one frame. Where the alpha is a mask, holes are filled: no loss counts them, but
        optical flow, feature matching and the prior look at the whole picture.
        """
        return read_rgb(frame.image, self.upright, fill=self.alpha_is_mask)

    def of_split(self, split: str | None) -> list[SourceFrame]:
        """The frames of one split, by time and then by the capture's own order."""
        return sorted((f for f in self.frames if f.split == split), key=lambda f: f.time)

    def training_frames(self) -> list[SourceFrame]:
        """All frames where there are no splits."""
        return self.of_split("train" if self.has_splits else None)

    @property
    def has_splits(self) -> bool:
        return any(frame.split is not None for frame in self.frames)


def inside(folder: Path, written: object, where: str) -> Path:
    """The existing file that a capture names with `written`, or BadInput if it is missing or leaves `folder`."""
    remedy = "name files relative to the capture's folder, below it, and put them there"
    if not isinstance(written, str) or not written.strip() or "\0" in written:
        raise BadInput(f"{where} is {written!r}, not the name of a file", remedy)
    parts = written.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0]:
        raise BadInput(f"{where} names {written!r}, a path that leaves the capture's folder", remedy)
    path = folder.joinpath(*parts)
    try:
        found, other, target = path.is_file(), path.exists(), path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links, no such character
        reason = getattr(error, "strerror", None) or "links in a circle, or an impossible name"  # not where it lies
        raise BadInput(f"{where} names {written[:80]!r}, which cannot be opened ({reason})", remedy) from error
    if not target.is_relative_to(folder.resolve()):
        raise BadInput(f"{where} names {written!r}, a link that leaves the capture's folder", remedy)
    if other and not found:
        raise BadInput(f"{where} names {written!r}, which is no file but a folder, pipe or device", remedy)
    if not found:
        raise BadInput(f"{where} names {written!r}, which is missing", remedy)
    return path


def common_size(images: list[Path], upright: bool) -> tuple[int, int]:
    """The one image size of a capture, from the headers, or BadInput."""
    size = image_size(images[0], upright)
    for path in images[1:]:
        other = image_size(path, upright)
        if other != size:
            raise BadInput(
                f"{path.name} has {other[0]}x{other[1]} pixels but {images[0].name} has {size[0]}x{size[1]}",
                "give all frames the same size",
            )
    return size


def image_sizes(images: list[Path]) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The most common size (width, height) of a posed capture's images as stored, and the size of each.

    Raises BadInput where they differ in shape, since all are scaled to one size.
    """
    sizes = [image_size(path, upright=False) for path in images]
    common = max(dict.fromkeys(sizes), key=sizes.count)
    for path, size in zip(images, sizes, strict=True):
        if not same_shape(size, common, _SHAPE_TOLERANCE):
            raise BadInput(
                f"{path.name} has {size[0]}x{size[1]} pixels, another shape than most frames ({common[0]}x{common[1]})",
                "leave out frames of another shape: all are brought to one size",
            )
    return common, sizes


def same_shape(size: tuple[int, int], other: tuple[int, int], tolerance: float) -> bool:
    """Whether two pictures (width, height) have the same aspect ratio up to a share of `tolerance`."""
    across, down = size[0] * other[1], size[1] * other[0]
    return abs(across - down) <= tolerance * max(across, down)


def list_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, in natural order; hidden files are left out."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(found, key=lambda p: natural_key(p.name))


def read_image_folder(folder: Path) -> SourceCapture:
    """A plain folder of frames: time is their natural order; nothing is known of the cameras."""
    images = [inside(folder, path.name, "the folder") for path in list_images(folder)]
    if not 2 <= len(images) <= MAX_FRAMES:
        raise BadInput(
            f"the folder holds {len(images)} image{'s' * (len(images) != 1)}; 2 to {MAX_FRAMES} can be used",
            "give the frames of one moving clip, numbered in order",
        )
    width, height = common_size(images, upright=True)
    last = len(images) - 1
    return SourceCapture(
        kind="images",
        frames=[SourceFrame(path.name, path, i / last) for i, path in enumerate(images)],
        width=width,
        height=height,
        upright=True,
        lossless=all(is_lossless(path) for path in images),
    )
