"""Where a view shows something that a training frame saw, told by the frames alone and not by the scene's geometry."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.render.visibility import TrainingViews

SPARE = 1.5  # points along the shorter side of a frame, in pixels of the view
HOLE = 3  # pixels: what is narrower is a hole between points, not a gap


@dataclass(frozen=True)
class Points:
    """P points on surfaces."""

    positions: Tensor  # (P, 3)
    times: Tensor  # (P,)
    moving: Tensor  # (P,) bool: they count at their time alone


class Coverage:
    """The surface points of the training frames, to be thrown into novel views of about `size` pixels a side.

    The other way round, `TrainingViews.seen` asks whether a frame saw the *rendered* surface: where the scene's depth
    is still wrong it calls seen places unseen.
    """

    def __init__(self, views: TrainingViews, size: int) -> None:
        frames, height, width = views.depth.shape
        step = max(1, int(min(height, width) / (SPARE * size)))
        frame, row, column = torch.meshgrid(
            torch.arange(frames), torch.arange(0, height, step), torch.arange(0, width, step), indexing="ij"
        )
        frame, row, column = (x.flatten().to(views.depth.device) for x in (frame, row, column))
        there = views.depth[frame, row, column] > 0
        frame, row, column = frame[there], row[there], column[there]
        origins, directions = views.cameras.rays(frame, torch.stack([column, row], dim=-1) + 0.5)
        positions = origins + views.depth[frame, row, column][:, None] * directions
        moving = torch.zeros_like(frame, dtype=torch.bool) if views.moving is None else views.moving[frame, row, column]
        self.points = Points(positions, views.times[frame], moving)
        self.spacing = views.spacing

    @torch.no_grad()
    def unseen(self, cameras: Cameras, times: Tensor, painted: Points | None = None) -> Tensor:
        """(N, H, W) float for N cameras at `times` (N,), 1 where nothing that a frame saw falls, or was `painted`.

        Still points are those of all frames, movers those of the view's time alone.
        """
        empty = self._empty(self.points, cameras, times)
        if painted is not None:
            empty = empty * self._empty(painted, cameras, times)
        return opened(empty, HOLE)[:, 0]

    def _empty(self, points: Points, cameras: Cameras, times: Tensor) -> Tensor:
        """(N, 1, H, W) float, 1 where none of `points` falls."""
        pixels, z = cameras.project_all(points.positions)
        now = (points.times - times[:, None]).abs() <= 0.75 * self.spacing
        inside, place = cameras.in_view(pixels, z)
        nowhere = cameras.height * cameras.width
        place = place.masked_fill(~(inside & (~points.moving | now)), nowhere)
        empty = torch.ones((len(cameras), nowhere + 1), device=z.device).scatter(1, place, 0.0)
        return empty[:, :-1].view(-1, 1, cameras.height, cameras.width)


def opened(mask: Tensor, size: int) -> Tensor:
    """`mask` (B, 1, H, W) of 0 and 1 without what is narrower than the odd `size`: erosion, then dilation."""
    eroded = 1 - max_pool2d(1 - mask, size, 1, size // 2)
    return max_pool2d(eroded, size, 1, size // 2)
