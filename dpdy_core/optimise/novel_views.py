"""Cameras where nobody filmed: between and around the training poses, further out as training goes on."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.geometry.cameras import Cameras, look_at
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.observed_space import ObservedSpace
from dpdy_core.scene.contraction import Bounds
from dpdy_core.section import Number

SPREAD = (0.05, 0.35)  # how far a novel camera moves, as a share of its distance to the target, first and last
PULL = (0.1, 0.5)  # how far it goes from the mean of two poses towards the two extreme ones, first and last
TRIES = 4  # cameras drawn for each that is wanted, where depth tells good from bad
LEAST_OBSERVED = 0.4  # share of a view that must show what was filmed
LEAST_TURN = 1 / 3  # of the largest angle of an orbiting camera


class NovelViews:
    """Draws cameras and input times (ViDAR, supplement B.3: means of poses, pulled to the extremes, plus noise).

    Cameras look at what training cameras look at; up is the mean of theirs. With depth, those that look into solid or
    unobserved space are rejected.
    """

    def __init__(self, clip: Clip, bounds: Bounds, width: int, height: int | None = None) -> None:
        """Views of `width` x `height` pixels, or square ones, see as much as fits into a training frame's view."""
        pose = clip.cameras.camera_to_world
        self.times = clip.times
        self.observed = None if clip.depth is None else ObservedSpace(clip.cameras, clip.depth, clip.motion)
        self.width, self.height = width, height or width
        self.centres = pose[:, :, 3]
        self.up = normalize(pose[:, :, 1].mean(dim=0), dim=0)
        axes = -pose[:, :, 2]
        reach = ((self.centres.new_tensor(bounds.centre) - self.centres) * axes).sum(dim=-1)
        self.reach = reach.clamp_min(0.5 * bounds.radius)[:, None]
        self.targets = self.centres + self.reach * axes
        scale = max(self.width / clip.cameras.width, self.height / clip.cameras.height)
        self.focal = clip.cameras.focal[:, 1].mean() * scale
        self.principal = torch.stack([torch.full_like(self.focal, side / 2) for side in (self.width, self.height)])
        spread = torch.cdist(self.centres, self.centres)
        self.extremes = self.centres[[int(i) for i in divmod(int(spread.argmax()), len(self.centres))]]

    def draw(self, count: int, progress: Number, generator: torch.Generator) -> tuple[Cameras, Tensor]:
        """`count` cameras for training `progress` in [0, 1], and the times (count,) at which to look.

        Each is the first of TRIES that sees LEAST_OBSERVED of what was filmed, or the best of them.
        """
        if self.observed is None:
            return self._around(count, progress, generator)
        cameras, times = self._around(count * TRIES, progress, generator)
        share = self.observed.share(cameras).view(count, TRIES)
        early = torch.arange(TRIES, 0, -1, device=share.device)
        best = torch.where(share >= LEAST_OBSERVED, early.float(), share).argmax(dim=-1)
        chosen = torch.arange(count, device=share.device) * TRIES + best
        return cameras[chosen], times[chosen]

    def orbiting(self, count: int, degrees: Number, generator: torch.Generator) -> tuple[Cameras, Tensor]:
        """`count` cameras off the path, good or bad, and the times (count,) at which to look.

        Each stands between LEAST_TURN and all of `degrees` around its target from a place between training cameras, to
        any side, and as far from the target as they are: wide views from far behind show bands above and below that
        nobody asks for.
        """
        centre, target, reach, frame = self._on_the_path(count, 1.0, generator)
        outward = normalize(centre - target, dim=-1)
        side = torch.randn(centre.shape, device=centre.device, generator=generator)
        side = normalize(side - (side * outward).sum(dim=-1, keepdim=True) * outward, dim=-1)
        turn = LEAST_TURN + (1 - LEAST_TURN) * torch.rand((count, 1), device=centre.device, generator=generator)
        angle = torch.deg2rad(turn * degrees)
        centre = target + reach * (angle.cos() * outward + angle.sin() * side)
        return self._looking(centre, target), self.times[frame]

    def _around(self, count: int, progress: Number, generator: torch.Generator) -> tuple[Cameras, Tensor]:
        centre, target, reach, frame = self._on_the_path(count, progress, generator)
        noise = normalize(torch.randn(centre.shape, device=centre.device, generator=generator), dim=-1)
        noise = noise * torch.rand((count, 1), device=centre.device, generator=generator)
        return self._looking(centre + noise * reach * _between(SPREAD, progress), target), self.times[frame]

    def _on_the_path(
        self, count: int, progress: Number, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centre and target (count, 3) and reach (count, 1) between two training cameras, and the index of one."""
        device = self.centres.device
        frames = torch.randint(len(self.centres), (2, count), device=device, generator=generator)
        mix = torch.rand((count, 1), device=device, generator=generator)
        centre = torch.lerp(self.centres[frames[0]], self.centres[frames[1]], mix)
        target = torch.lerp(self.targets[frames[0]], self.targets[frames[1]], mix)
        reach = torch.lerp(self.reach[frames[0]], self.reach[frames[1]], mix)
        extreme = self.extremes[torch.randint(2, (count,), device=device, generator=generator)]
        pull = torch.rand((count, 1), device=device, generator=generator) * _between(PULL, progress)
        return torch.lerp(centre, extreme, pull), target, reach, frames[0]

    def _looking(self, centre: Tensor, target: Tensor) -> Cameras:
        count = len(centre)
        return Cameras(
            camera_to_world=look_at(centre, target, self.up),
            focal=self.focal.expand(count, 2),
            principal=self.principal.expand(count, 2),
            width=self.width,
            height=self.height,
        )


def _between(limits: tuple[float, float], progress: Number) -> Number:
    return limits[0] + (limits[1] - limits[0]) * progress
