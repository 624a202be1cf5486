"""Which points of a view the training frames saw, from the exact geometry of a moving scene."""

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth.objects import Pieces

TOLERANCE = 0.01  # of the depth


def carried(pieces: Pieces, view: int, frames: Tensor, place: Tensor, point: Tensor) -> Tensor:
    """(F, N, 3) where the material points `point` (N, 3) of pieces `place` (N,) in scene `view` are in scenes `frames`
    (F,) of `pieces`."""
    own = torch.einsum("nji,nj->ni", pieces.rotation[view, place], point - pieces.position[view, place])
    turned = torch.einsum("fnij,nj->fni", pieces.rotation[frames][:, place], own)
    return turned + pieces.position[frames][:, place]


def times_seen(points: Tensor, cameras: Cameras, depth: Tensor) -> Tensor:
    """(N,) in how many of F frames the points are in view and not behind what the frame shows there.

    `points` (F, N, 3) are in world space at each frame's own time, `depth` (F, H, W) the frames' planar depth. A point
    counts as seen where it is no farther than the farthest of the four pixels about it, within TOLERANCE.
    """
    frames, count, _ = points.shape
    number = torch.arange(frames).repeat_interleave(count)
    pixels, z = cameras.project(points.flatten(0, 1), number)
    inside = (z > 0) & (pixels >= 0).all(-1) & (pixels[:, 0] < cameras.width) & (pixels[:, 1] < cameras.height)
    corner = (pixels - 0.5).nan_to_num(0).clamp(-1, max(cameras.width, cameras.height)).floor().long()
    farthest = torch.zeros_like(z)
    for dx in (0, 1):
        for dy in (0, 1):
            x = (corner[:, 0] + dx).clamp(0, cameras.width - 1)
            y = (corner[:, 1] + dy).clamp(0, cameras.height - 1)
            farthest = torch.maximum(farthest, depth[number, y, x])
    seen = inside & (z <= farthest * (1 + TOLERANCE))
    return seen.view(frames, count).sum(0)
