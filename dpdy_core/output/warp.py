"""Frames moved to another camera by their depth."""

import cv2
import numpy as np
import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras, pixel_centres

SUBPIXELS = 4  # points a side that each pixel is split into: no cracks where a surface comes up to four times closer
SURFACE = 0.02  # relative depth within which points in one pixel belong to one surface and are averaged


def warp(
    image: Tensor, depth: Tensor, mask: Tensor, source: Cameras, target: Cameras, index: int, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """Image (H, W, 3) with planar `depth` (H, W) of the one camera `source`, seen by camera `index` of `target`.

    Pixels in `mask` (H, W) with a depth > 0 are moved as 4 x 4 points each; of those that fall into one pixel the
    nearest surface is averaged. Only pixels `wanted` (H', W') bool are made. Returns the picture (H', W', 3), black
    where nothing fell, and whether something did, (H', W') bool.
    """
    use = mask & (depth > 0)
    pixels = pixel_centres(depth.shape[1], depth.shape[0], depth.device, depth.dtype)[use]
    offsets = ((torch.arange(SUBPIXELS, dtype=depth.dtype, device=depth.device) + 0.5) / SUBPIXELS) - 0.5
    pixels = (pixels[:, None] + torch.cartesian_prod(offsets, offsets)).reshape(-1, 2)
    z = depth[use].repeat_interleave(SUBPIXELS**2)

    # camera axes: x right, y up, looking along -z; one camera each, so plain matrix products
    x, y = ((pixels - source.principal[0]) / source.focal[0] * z[:, None]).unbind(-1)
    pose, onto = source.camera_to_world[0], target.camera_to_world[index]
    world = torch.stack([x, -y, -z], dim=-1) @ pose[:, :3].T + (pose[:, 3] - onto[:, 3])
    right, up, back = (world @ onto[:, :3]).unbind(-1)
    distance = -back
    moved = torch.stack([right, -up], dim=-1) / distance.clamp(min=1e-9)[:, None]

    inside, place = target.in_view(moved * target.focal[index] + target.principal[index], distance)
    kept = (inside & wanted.flatten()[place]).nonzero()[:, 0]
    place, distance = place[kept], distance[kept]
    nearest = distance.new_full((target.height * target.width,), torch.inf).scatter_reduce_(0, place, distance, "amin")
    front = distance <= nearest[place] * (1 + SURFACE)
    place, colours = place[front], image[use][kept[front] // SUBPIXELS**2]
    total = image.new_zeros((len(nearest), 3)).index_add_(0, place, colours)
    count = image.new_zeros(len(nearest)).index_add_(0, place, torch.ones_like(colours[:, 0]))
    picture = total / count.clamp(min=1)[:, None]
    return picture.view(target.height, target.width, 3), (count > 0).view(target.height, target.width)


def filled(picture: Tensor, hit: Tensor) -> Tensor:
    """`picture` (H, W, 3) with every pixel that was not `hit` (H, W) taken from the nearest one that was."""
    holes = (~hit).cpu().numpy()
    if holes.all() or not holes.any():
        return picture
    _, labels = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(labels.max() + 1, np.int64)
    source[labels[~holes]] = np.flatnonzero(~holes)
    return picture.flatten(0, 1)[torch.from_numpy(source[labels]).to(picture.device)]
