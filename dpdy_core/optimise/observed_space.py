"""How much of what a camera looks at was filmed."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.geometry.cameras import Cameras

POINTS = 4096  # of the clip's depth maps that stand for its surfaces
CELLS = 8  # a view is judged on a lattice of CELLS x CELLS
FACING = 0.2  # least cosine between the direction a surface is seen from and that it was filmed from
THICKNESS = 0.1  # relative depth within which points of one cell belong to one surface


class ObservedSpace:
    """Points on the surfaces that stood still before the cameras, and from where each was filmed."""

    def __init__(self, frames: Cameras, depth: Tensor, motion: Tensor | None) -> None:
        """T cameras `frames` with planar `depth` (T, H, W), 0 = none, and masks `motion` (T, H, W) of what moves."""
        there = depth > 0 if motion is None else (depth > 0) & ~motion
        places = torch.nonzero(there.flatten())[:, 0]
        chosen = torch.linspace(0, max(len(places) - 1, 0), min(POINTS, len(places)), device=places.device).long()
        height, width = depth.shape[1:]
        frame, rest = places[chosen] // (height * width), places[chosen] % (height * width)
        row, column = rest // width, rest % width
        origins, directions = frames.rays(frame, torch.stack([column, row], dim=-1) + 0.5)
        self.points = origins + depth[frame, row, column][:, None] * directions  # (P, 3)
        self.towards = normalize(-directions, dim=-1)  # (P, 3) from each point to the camera that filmed it

    def share(self, cameras: Cameras) -> Tensor:
        """(N,) the share of each view in which the nearest surface is one that was filmed from this side.

        It is low for a camera that looks past the scene, and zero behind a wall or inside a thing: from there surfaces
        show the side that no frame saw.
        """
        count = len(cameras)
        camera = torch.arange(count, device=self.points.device)[:, None]
        pixels, z = cameras.project_all(self.points)
        column = (pixels[..., 0] * CELLS / cameras.width).floor().clamp(-1, CELLS)
        row = (pixels[..., 1] * CELLS / cameras.height).floor().clamp(-1, CELLS)
        inside = (z > 0) & (column >= 0) & (column < CELLS) & (row >= 0) & (row < CELLS)
        cell = (camera * CELLS + row.clamp(0, CELLS - 1).long()) * CELLS + column.clamp(0, CELLS - 1).long()
        seen_from = normalize(cameras.centres[:, None] - self.points, dim=-1)
        front = (seen_from * self.towards).sum(dim=-1) > FACING

        def nearest(which: Tensor) -> Tensor:
            nothing = torch.full((count * CELLS * CELLS,), torch.inf, device=z.device)
            return nothing.scatter_reduce(0, cell.flatten(), z.masked_fill(~which, torch.inf).flatten(), "amin")

        filmed = nearest(inside & front)
        shown = filmed.isfinite() & (filmed <= (1 + THICKNESS) * nearest(inside))
        return shown.view(count, -1).float().mean(dim=-1)
