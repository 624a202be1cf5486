"""What no method may fall short of: pictures made from the training frames without any scene."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.output.warp import filled, warp

MOST_FRAMES = 40  # that fill the holes of the all-times warp, evenly spaced in time


def nearest_frame(train: Clip, cameras: Cameras, index: int, time: float) -> Tensor:
    """(H, W, 3) in [0, 1]: the training frame nearest to `time`, of equals the nearest camera, unmoved.

    Camera `index` of `cameras` has the image size of `train`.
    """
    return train.images[_nearest(train, cameras, index, time)].float() / 255


def all_times_warps(train: Clip, cameras: Cameras, times: Tensor) -> Iterator[Tensor]:
    """(H, W, 3) in [0, 1] for each camera at its time: the same-time training frame warped by its depth.

    Holes are filled from the static pixels of all other frames, warped too, those of the nearest camera first, and what
    is left with the nearest pixel. `train` must have depth; without motion masks all of it counts as static.
    """
    poses = torch.cat([cameras.camera_to_world.flatten(1), cameras.focal, cameras.principal], dim=1)
    groups = torch.unique(poses, dim=0, return_inverse=True)[1].tolist()
    backgrounds: dict[int, tuple[Tensor, Tensor]] = {}  # fixed cameras share theirs
    for index, time in enumerate(times.tolist()):
        if groups[index] not in backgrounds:
            backgrounds[groups[index]] = _static_layer(train, cameras, index)
        behind, known = backgrounds[groups[index]]
        frame = int(_nearest(train, cameras, index, time))
        picture, hit = _warped(train, frame, False, cameras, index, torch.ones_like(known))
        yield filled(torch.where(hit[..., None], picture, behind), hit | known)


def _nearest(train: Clip, cameras: Cameras, index: int, time: float) -> Tensor:
    gaps = (train.times - time).abs()
    nearest = gaps <= gaps.min() + 1e-6
    distances = (train.cameras.centres - cameras.centres[index]).norm(dim=-1)
    return torch.where(nearest, distances, torch.full_like(distances, torch.inf)).argmin()


def _static_layer(train: Clip, cameras: Cameras, index: int) -> tuple[Tensor, Tensor]:
    """What stands still as camera `index` sees it (H, W, 3), and where that is known (H, W)."""
    chosen = torch.linspace(0, len(train) - 1, min(len(train), MOST_FRAMES)).round().long()
    distances = (train.cameras.centres - cameras.centres[index]).norm(dim=-1).cpu()[chosen]
    layer = train.images.new_zeros((cameras.height, cameras.width, 3), dtype=torch.float32)
    known = torch.zeros_like(layer[..., 0], dtype=torch.bool)
    for frame in chosen[distances.argsort(stable=True)].tolist():
        picture, hit = _warped(train, frame, True, cameras, index, ~known)
        layer = torch.where(hit[..., None], picture, layer)
        known |= hit
    return layer, known


def _warped(
    train: Clip, frame: int, static: bool, cameras: Cameras, index: int, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    assert train.depth is not None
    mask = train.valid[frame]
    if static and train.motion is not None:
        mask = mask & ~train.motion[frame]
    image = train.images[frame].float() / 255
    return warp(image, train.depth[frame], mask, train.cameras[frame], cameras, index, wanted)
