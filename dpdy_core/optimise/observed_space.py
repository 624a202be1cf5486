"""How much of what a camera looks at was filmed."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip

POINTS = 4096  # of the clip's depth maps that stand for its surfaces
CELLS = 8  # a view is judged on a lattice of CELLS x CELLS
FACING = 0.2  # least cosine between the direction a surface is seen from and that it was filmed from
THICKNESS = 0.1  # relative depth within which points of one cell belong to one surface


class ObservedSpace:
    """Points on the surfaces that stood still before the cameras, and from where each was filmed. Needs depth."""

    def __init__(self, clip: Clip) -> None:
        assert clip.depth is not None
        there = clip.depth > 0 if clip.motion is None else (clip.depth > 0) & ~clip.motion
        places = torch.nonzero(there.flatten())[:, 0]
        chosen = torch.linspace(0, max(len(places) - 1, 0), min(POINTS, len(places)), device=places.device).long()
        height, width = clip.depth.shape[1:]
        frame, rest = places[chosen] // (height * width), places[chosen] % (height * width)
        row, column = rest // width, rest % width
        origins, directions = clip.cameras.rays(frame, torch.stack([column, row], dim=-1) + 0.5)
        self.points = origins + clip.depth[frame, row, column][:, None] * directions  # (P, 3)
        self.towards = normalize(-directions, dim=-1)  # (P, 3) from each point to the camera that filmed it

    def share(self, cameras: Cameras) -> Tensor:
        """(N,) the share of each view in which the nearest surface is one that was filmed from this side.

        It is low for a camera that looks past the scene, and zero behind a wall or inside a thing: from there surfaces
        show the side that no frame saw.
        """
        count, points = len(cameras), len(self.points)
        camera = torch.arange(count, device=self.points.device).repeat_interleave(points)
        pixels, z = cameras.project(self.points.repeat(count, 1), camera)
        column = (pixels[:, 0] * CELLS / cameras.width).floor().clamp(-1, CELLS)
        row = (pixels[:, 1] * CELLS / cameras.height).floor().clamp(-1, CELLS)
        inside = (z > 0) & (column >= 0) & (column < CELLS) & (row >= 0) & (row < CELLS)
        cell = (camera * CELLS + row.clamp(0, CELLS - 1).long()) * CELLS + column.clamp(0, CELLS - 1).long()
        seen_from = normalize(cameras.centres[:, None] - self.points, dim=-1)
        front = ((seen_from * self.towards).sum(dim=-1) > FACING).flatten()

        def nearest(which: Tensor) -> Tensor:
            nothing = torch.full((count * CELLS * CELLS,), torch.inf, device=z.device)
            return nothing.scatter_reduce(0, cell, z.masked_fill(~which, torch.inf), "amin")

        filmed = nearest(inside & front)
        shown = filmed.isfinite() & (filmed <= (1 + THICKNESS) * nearest(inside))
        return shown.view(count, -1).float().mean(dim=-1)
