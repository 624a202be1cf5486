"""Rays that look at a mover's surface where it was when a frame could not see it."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.carried_pixels import CarriedPixels

CLOSEST = 0.15  # share of the way to a carried surface that must be free: its ray starts beyond what hid it
GLANCES = 48  # points on the way that are looked at
WITNESSES = 16  # frames that are asked whether they saw through them


class CarriedRays:
    """Turns rays through carried pixels into rays at the time to which these are carried.

    In the mover's own frame the way to its surface is as free as it was when the surface was seen. What stands still
    must be shown not to be in it, by frames that saw through, and other movers by the frame of that time, as far as it
    shows them.
    """

    def __init__(self, clip: Clip, pixels: CarriedPixels) -> None:
        """`clip` and `pixels` lie on one device; the clip has depth and motion masks."""
        assert clip.depth is not None
        assert clip.motion is not None
        self.pixels, self.motion = pixels, clip.motion
        # an edge may lie anywhere in its pixel: a place counts as seen through if all pixels around say so
        self.nearest = -max_pool2d(-clip.depth[:, None], 3, 1, 1)[:, 0]
        self.witnesses = (
            torch.linspace(0, len(clip) - 1, min(WITNESSES, len(clip))).round().long().to(clip.depth.device)
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) numbers of random carried pixels."""
        return torch.randint(len(self.pixels), (count,), device=self.motion.device, generator=generator)

    def carry(
        self, entry: Tensor, origins: Tensor, directions: Tensor, depth: Tensor, cameras: Cameras
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Origins and directions (R, 3) at the later time, and whether (R,) bool their surface is in free sight.

        `origins`, `directions` (R, 3) and `depth` (R,) are those of rays to the surfaces of the pixels `entry` (R,) at
        the time at which they were seen. A ray keeps its depth, and becomes shorter where the way is free in part: so
        a nearer start does not make an error of the surface weigh more.
        """
        known = self.pixels
        motion = known.motions[known.motion[entry]]
        directions = torch.einsum("rij,rj->ri", motion[:, :, :3], directions)
        origins = torch.einsum("rij,rj->ri", motion[:, :, :3], origins) + motion[:, :, 3]
        points = origins + depth[:, None] * directions
        free = self._free_share(points, origins, known.target[entry], known.piece[known.motion[entry]], cameras)
        directions = free[:, None] * directions
        return points - depth[:, None] * directions, directions, free >= CLOSEST

    @torch.no_grad()
    def _free_share(self, points: Tensor, origins: Tensor, target: Tensor, piece: Tensor, cameras: Cameras) -> Tensor:
        """(R,) how much of the way from `points` back to `origins` (R, 3) is free, as a share.

        Free is what some frame saw through, and where frame `target` (R,) does not have a piece before it other than
        its number `piece` (R,).
        """
        share = ((torch.arange(GLANCES, device=points.device) + 0.5) / GLANCES)[:, None, None]
        between = (points + share * (origins - points)).reshape(-1, 3)
        views = cameras[self.witnesses]
        pixels, z = views.project_all(between)
        inside, place = views.in_view(pixels, z)
        surface = self.nearest[self.witnesses].flatten(1).gather(1, place)
        free = (inside & (z <= surface)).any(dim=0)
        now = target.repeat(GLANCES)
        pixels, z = cameras.project(between, now)
        inside, place = cameras.in_view(pixels, z)
        place = now * (cameras.width * cameras.height) + place
        other = self.motion.flatten()[place] & (self.pixels.pieces.flatten()[place] != piece.repeat(GLANCES))
        free &= ~(inside & other & (z > self.nearest.flatten()[place]))
        return free.view(GLANCES, -1).float().cumprod(dim=0).mean(dim=0)
