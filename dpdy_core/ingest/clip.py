"""The canonical capture as tensors.

Canonical means: one pinhole image size, no distortion, every frame has `time`, all three split lists are there,
paths are relative and inside the folder. The stages add to one `transforms.json`: ingest images, times and splits;
masks `motion_mask_path`; cameras `transform_matrix`; depth `depth_file_path` in the scale of the cameras.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.errors import BadInput
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.size import fitted_size
from dpdy_core.rundir import read_json, write_json

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Clip:
    """T frames of one split. Arrays are on the CPU until `to`."""

    names: list[str]  # file_path of each frame
    times: Tensor  # (T,) in [0, 1]
    cameras: Cameras  # T cameras of the images' size
    images: Tensor  # (T, H, W, 3) uint8
    valid: Tensor  # (T, H, W) bool, False = ignore in training
    depth: Tensor | None  # (T, H, W) float32 planar z in camera units, 0 = none
    motion: Tensor | None  # (T, H, W) bool, True = moving
    covisible: Tensor | None  # (T, H, W) bool, True = seen by enough training frames
    depth_range: tuple[float, float] | None = None  # what the capture says of its nearest and farthest planar depth

    def __len__(self) -> int:
        return len(self.names)

    def colours(self) -> Tensor:
        """(T, H, W, 3) float32 in [0, 1]."""
        return self.images.float() / 255

    def to(self, device: torch.device | str) -> "Clip":
        moved = {
            name: value.to(device)
            for name in ("times", "cameras", "images", "valid", "depth", "motion", "covisible")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **moved)


def frames_of(document: dict[str, Any], split: Split) -> list[dict[str, Any]]:
    """The frames of one split of a canonical `transforms.json`, ordered by time."""
    wanted = set(document[f"{split}_filenames"])
    return sorted(
        (f for f in document["frames"] if f["file_path"] in wanted), key=lambda f: (f["time"], f["file_path"])
    )


def read_transforms(capture: Path) -> dict[str, Any]:
    """The canonical document of the capture folder."""
    document: dict[str, Any] = read_json(capture / "transforms.json")
    return document


def training_part(document: dict[str, Any]) -> dict[str, Any]:
    """A canonical document without the held-out frames: nothing that is trained may depend on them."""
    rest = {key: value for key, value in document.items() if key not in ("val_filenames", "test_filenames")}
    return {**rest, "frames": frames_of(document, "train")}


def write_transforms(capture: Path, document: dict[str, Any]) -> None:
    """Replace the canonical document atomically."""
    write_json(capture / "transforms.json", document)


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB at `size` (width, height); shrunk by area averaging."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise BadInput(f"{path.name} is not a readable image")
    if (image.shape[1], image.shape[0]) != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool at `size` (width, height), nearest neighbour, so that no value is made up."""
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BadInput(f"{path.name} is not a readable mask")
    return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 127


def read_depth(path: Path, unit: float, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 at `size` (width, height): 16-bit PNG or npy times `unit`, nearest neighbour; 0 = none."""
    if path.suffix == ".npy":
        raw = np.load(path, allow_pickle=False).squeeze()
    else:
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise BadInput(f"{path.name} is not a depth map", "use a one-channel 16-bit PNG or an (H, W) npy")
    depth = np.nan_to_num(raw.astype(np.float32) * unit, nan=0.0, posinf=0.0, neginf=0.0)
    return cv2.resize(np.maximum(depth, 0), size, interpolation=cv2.INTER_NEAREST)


def load_cameras(document: dict[str, Any], frames: list[dict[str, Any]]) -> Cameras:
    """Cameras of `frames`; intrinsics of a frame win over those of the document."""

    def intrinsic(*keys: str) -> Tensor:
        return torch.tensor([[float(f.get(k, document[k])) for k in keys] for f in frames], dtype=torch.float32)

    matrices = torch.tensor([f["transform_matrix"] for f in frames], dtype=torch.float64)
    return Cameras(
        camera_to_world=matrices[:, :3, :].float(),
        focal=intrinsic("fl_x", "fl_y"),
        principal=intrinsic("cx", "cy"),
        width=int(document["w"]),
        height=int(document["h"]),
    )


def load_clip(capture: Path, split: Split, max_size: int) -> Clip | None:
    """The frames of `split` at most `max_size` pixels long, or None where the split is empty.

    Needs the cameras stage. A map (depth, motion, covisible) is None unless at least one frame has it;
    frames without it get zeros.
    """
    document = read_transforms(capture)
    frames = [f for f in frames_of(document, split) if "transform_matrix" in f]
    if not frames:
        return None
    cameras = load_cameras(document, frames)
    size = fitted_size(cameras.width, cameras.height, max_size)
    unit = float(document.get("depth_unit_scale_factor", 0.001))

    def stack(key: str, read: Any, empty: np.ndarray) -> Tensor | None:
        if not any(key in f for f in frames):
            return None
        return torch.from_numpy(np.stack([read(capture / f[key]) if key in f else empty for f in frames]))

    nothing = np.zeros((size[1], size[0]), dtype=bool)
    depth_range = document.get("depth_range")
    valid = stack("mask_path", lambda path: read_mask(path, size), ~nothing)
    return Clip(
        names=[f["file_path"] for f in frames],
        times=torch.tensor([f["time"] for f in frames], dtype=torch.float32),
        cameras=cameras.resized(*size),
        images=torch.from_numpy(np.stack([read_image(capture / f["file_path"], size) for f in frames])),
        valid=torch.ones((len(frames), size[1], size[0]), dtype=torch.bool) if valid is None else valid,
        depth=stack("depth_file_path", lambda path: read_depth(path, unit, size), nothing.astype(np.float32)),
        motion=stack("motion_mask_path", lambda path: read_mask(path, size), nothing),
        covisible=stack("covisible_path", lambda path: read_mask(path, size), nothing),
        depth_range=None if depth_range is None else (float(depth_range[0]), float(depth_range[1])),
    )


def load_given_depth(capture: Path, clip: Clip) -> Tensor | None:
    """(T, H, W) float32: the capture's own metric depth of the frames of `clip`, in its own unit, 0 = none.

    None unless a frame has it. Held-out frames keep it for scores alone; `Clip.depth` is what the depth stage made.
    """
    document = read_transforms(capture)
    paths = {f["file_path"]: f.get("user_depth_file_path") for f in document["frames"]}
    given = [paths[name] for name in clip.names]
    if not any(given) or document.get("user_depth_kind", "metric") != "metric":
        return None
    size = (clip.cameras.width, clip.cameras.height)
    unit = float(document["user_depth_unit_scale_factor"])
    empty = np.zeros((size[1], size[0]), np.float32)
    return torch.from_numpy(np.stack([read_depth(capture / path, unit, size) if path else empty for path in given]))
