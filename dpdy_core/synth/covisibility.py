"""Which points of a view the training frames saw, from the exact geometry of a moving scene."""

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.synth.objects import Pieces
from dpdy_core.synth.raytrace import PieceList, trace

TOLERANCE = 0.005  # of the depth


def carried(pieces: Pieces, view: int, frames: Tensor, place: Tensor, point: Tensor) -> Tensor:
    """(F, N, 3) where the material points `point` (N, 3) of pieces `place` (N,) in scene `view` are in scenes `frames`
    (F,) of `pieces`."""
    own = torch.einsum("nji,nj->ni", pieces.rotation[view, place], point - pieces.position[view, place])
    turned = torch.einsum("fnij,nj->fni", pieces.rotation[frames][:, place], own)
    return turned + pieces.position[frames][:, place]


def times_seen(points: Tensor, scenes: PieceList, cameras: Cameras, depth: Tensor) -> Tensor:
    """(N,) in how many of F frames, scene f seen by camera f, the points are in view and nothing hides them.

    `points` (F, N, 3) are in world space at each frame's own time, `depth` (F, H, W) the frames' planar depth. The four
    pixels about a point tell, and where they do not agree a ray does.
    """
    frames, count, _ = points.shape
    number = torch.arange(frames).repeat_interleave(count)
    pixels, z = cameras.project(points.flatten(0, 1), number)
    inside = (z > 0) & (pixels >= 0).all(-1) & (pixels[:, 0] < cameras.width) & (pixels[:, 1] < cameras.height)
    corner = (pixels - 0.5).nan_to_num(0).clamp(-1, max(cameras.width, cameras.height)).floor().long()
    around = []
    for dx in (0, 1):
        for dy in (0, 1):
            x = (corner[:, 0] + dx).clamp(0, cameras.width - 1)
            y = (corner[:, 1] + dy).clamp(0, cameras.height - 1)
            around.append(depth[number, y, x])
    nearest, farthest = torch.stack(around).aminmax(dim=0)
    before, behind = (z <= limit * (1 + TOLERANCE) for limit in (nearest, farthest))
    seen, unsure = (inside & before).view(frames, count), (inside & behind & ~before).view(frames, count)

    # as many rays for each frame as the one with the most doubts needs
    chosen = unsure.long().argsort(dim=1, descending=True, stable=True)[:, : int(unsure.sum(1).max())]
    toward = points.gather(1, chosen[..., None].expand(-1, -1, 3)) - cameras.centres[:, None]
    wanted = z.view(frames, count).gather(1, chosen)
    hits = trace(scenes, cameras.centres, (toward / wanted[..., None]).transpose(1, 2))
    free = hits.depth.view_as(wanted) >= wanted * (1 - TOLERANCE)
    return (seen | torch.zeros_like(seen).scatter_(1, chosen, free & unsure.gather(1, chosen))).sum(0)
