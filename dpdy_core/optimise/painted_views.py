"""A pool of painted novel views on the device, random rays of their painted pixels, and where these lie in space."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.render.coverage import Points

NAMES = ("poses", "times", "colour", "inverse_depth", "painted", "still")


@dataclass(frozen=True)
class PaintedRays:
    """R rays of painted pixels."""

    origins: Tensor  # (R, 3)
    directions: Tensor  # (R, 3), advancing planar depth by one
    times: Tensor  # (R,)
    colour: Tensor  # (R, 3)
    inverse_depth: Tensor  # (R,) 1 / world units
    still: Tensor  # (R,) float: 1 where the static field owned the pixel
    weight: Tensor  # (R,) float: 1 on painted pixels; all 0 if the pool has none


class PaintedViews:
    """Up to `capacity` views of `width` x `height` pixels.

    Tensors are written in place, so that a CUDA graph may draw from them.
    """

    def __init__(self, capacity: int, width: int, height: int, device: torch.device) -> None:
        self.width, self.height, self.made = width, height, 0
        self.poses = torch.zeros((capacity, 3, 4), device=device)
        self.times = torch.zeros(capacity, device=device)
        self.colour = torch.zeros((capacity, 3, height, width), device=device)
        self.inverse_depth, self.painted, self.still = (
            torch.zeros((capacity, 1, height, width), device=device) for _ in range(3)
        )

    def put(
        self, pose: Tensor, time: Tensor, colour: Tensor, inverse_depth: Tensor, painted: Tensor, still: Tensor
    ) -> None:
        """Keep N more views: pose (N, 3, 4), time (N,), colour (N, 3, H, W); the maps (N, 1, H, W).

        Raises ValueError if there is no room for them.
        """
        places = slice(self.made, self.made + len(time))
        if places.stop > len(self.poses):
            raise ValueError(f"{len(self.poses)} painted views have no room for {places.stop}")
        for name, value in zip(NAMES, (pose, time, colour, inverse_depth, painted, still), strict=True):
            getattr(self, name)[places] = value
        self.made += len(time)

    def draw(self, count: int, focal: Tensor, generator: torch.Generator) -> PaintedRays:
        """`count` rays through random painted pixels of all views; `focal` is that of each, in pixels."""
        device = self.poses.device
        mass = self.painted.flatten().cumsum(dim=0, dtype=torch.float64)
        wanted = torch.rand(count, device=device, generator=generator, dtype=torch.float64) * mass[-1]
        chosen = torch.searchsorted(mass, wanted, right=True).clamp_max(len(mass) - 1)
        view, row, column, origins, directions = self._rays(chosen, focal)
        return PaintedRays(
            origins=origins,
            directions=directions,
            times=self.times[view],
            colour=self.colour[view, :, row, column],
            inverse_depth=self.inverse_depth[view, 0, row, column],
            still=self.still[view, 0, row, column],
            weight=self.painted[view, 0, row, column],
        )

    def points(self, focal: Tensor) -> Points:
        """Where the painted pixels of all views lie in space."""
        view, row, column, origins, directions = self._rays(torch.nonzero(self.painted.flatten())[:, 0], focal)
        inverse_depth = self.inverse_depth[view, 0, row, column]
        return Points(
            positions=origins + directions / inverse_depth.clamp_min(1e-6)[:, None],
            times=self.times[view],
            moving=self.still[view, 0, row, column] == 0,
        )

    def _rays(self, chosen: Tensor, focal: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """View, row and column of each pixel that is `chosen` (R,) of all views', and its ray."""
        capacity, pixels = len(self.poses), self.width * self.height
        view, row, column = chosen // pixels, chosen % pixels // self.width, chosen % self.width
        centre = torch.stack([focal.new_full((capacity,), side / 2) for side in (self.width, self.height)], dim=-1)
        cameras = Cameras(self.poses, focal.expand(capacity, 2), centre, self.width, self.height)
        return view, row, column, *cameras.rays(view, torch.stack([column, row], dim=-1) + 0.5)

    def state(self) -> dict[str, Tensor]:
        """All tensors that `load` needs."""
        return {name: getattr(self, name) for name in NAMES} | {"made": torch.tensor(self.made)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        for name in NAMES:
            getattr(self, name).copy_(state[name])
        self.made = int(state["made"])
