"""Batches of training rays: random pixels of all frames, some of them seen again from a moved camera."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.errors import BadInput
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.optimise.carried_pixels import CarriedPixels
from dpdy_core.optimise.carried_rays import CarriedRays
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.section import Number

MOVING_SHARE = 0.3  # of the rays start on pixels that move, however few those are
SPREAD = 0.5  # how far a camera is moved at most, as a share of the depth of what it looks at
NOVEL_CAMERAS = 8  # a batch's novel rays come from so many views
CHECKS = 24  # points between a moved camera and a surface at which the way is checked to be free
FREE_TOLERANCE = 0.02  # relative depth by which such a point may lie behind the observed surface


@dataclass(frozen=True)
class RayBatch:
    """R rays with what was observed along them."""

    origins: Tensor  # (R, 3)
    directions: Tensor  # (R, 3), advancing planar depth by one
    frame: Tensor  # (R,) int, the training frame that was observed
    times: Tensor  # (R,)
    colour: Tensor  # (R, 3)
    depth: Tensor  # (R,) planar z, 0 = none
    moving: Tensor  # (R,) bool
    observed: Tensor  # (R,) float: 1 where the colour and depth hold, 0 where the ray is only regularised


class TrainingRays:
    """Draws batches from a clip that lies on the device.

    `reaimed` is the share of rays that are turned into a novel view of their own pixel: the surface point of the
    pixel's depth is looked at, at the same time, from a camera moved by up to SPREAD of that depth. Where
    the frame's own depth shows the way to be free the pixel's colour must be seen there too: what warping the frame
    by its depth gives, as supervision. `novel_share` is the share that comes from `novel` views at random times and is
    only regularised: nothing else forbids fog that no frame's ray meets. `carried_share` is the share that shows
    `carried` pixels, re-aimed, at the time at which their surfaces were hidden.
    """

    def __init__(
        self,
        clip: Clip,
        reaimed: float,
        novel: NovelViews | None = None,
        novel_share: float = 0.0,
        carried: CarriedPixels | None = None,
        carried_share: float = 0.0,
    ) -> None:
        self.clip = clip
        self.carried = CarriedRays(clip, carried) if carried is not None else None
        self.novel, self.novel_share = novel, novel_share if novel is not None else 0.0
        self.reaimed = reaimed if clip.depth is not None else 0.0
        self.usable = None if bool(clip.valid.all()) else torch.nonzero(clip.valid.flatten())[:, 0]
        if not bool(clip.valid.any()):
            raise BadInput("the masks leave no pixel to train on", "check mask_path: 0 means ignore this pixel")
        moving = clip.valid & clip.motion if clip.motion is not None else torch.zeros_like(clip.valid)
        self.moving_pixels = torch.nonzero(moving.flatten())[:, 0]
        # as large a part of the batch as they are of what is seen of the movers, so that few are not learnt by heart
        known = 0.0 if carried is None else len(carried) / max(len(self.moving_pixels), 1)
        self.carried_share = min(carried_share, known)

    def draw(
        self, count: int, generator: torch.Generator, cameras: Cameras | None = None, progress: Number = 0.0
    ) -> RayBatch:
        """`count` rays: plain ones, re-aimed ones, carried ones, those of novel views as they are at `progress`.

        `cameras` stand in for those of the clip; rays are differentiable in their poses.
        """
        cameras = self.clip.cameras if cameras is None else cameras
        novel, carried = int(count * self.novel_share), int(count * self.carried_share)
        own = count - novel - carried
        again = int(own * self.reaimed)
        batch = self._observed(*self._pixels(own, generator), cameras)
        if again > 0:
            batch = self._reaim(batch, own - again, cameras, generator)
        if carried > 0:
            batch = _joined(batch, self._carry(carried, cameras, generator))
        return batch if novel == 0 else _joined(batch, self._novel(novel, progress, generator))

    def _observed(self, frame: Tensor, row: Tensor, column: Tensor, cameras: Cameras) -> RayBatch:
        """The rays through pixels of the frames."""
        clip, count = self.clip, len(frame)
        pixels = torch.stack([column, row], dim=-1) + 0.5
        origins, directions = cameras.rays(frame, pixels)
        zero = torch.zeros(count, device=origins.device)
        return RayBatch(
            origins=origins,
            directions=directions,
            frame=frame,
            times=clip.times[frame],
            colour=clip.images[frame, row, column].float() / 255,
            depth=zero if clip.depth is None else clip.depth[frame, row, column],
            moving=zero.bool() if clip.motion is None else clip.motion[frame, row, column],
            observed=zero + 1,
        )

    def _pixels(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        height, width = self.clip.valid.shape[1:]
        device = self.clip.valid.device
        movers = int(count * MOVING_SHARE) if len(self.moving_pixels) else 0
        pixels = self.clip.valid.numel() if self.usable is None else len(self.usable)
        chosen = torch.randint(pixels, (count,), device=device, generator=generator)
        chosen = chosen if self.usable is None else self.usable[chosen]
        if movers:
            # Every third ray or so, spread over the batch, so that re-aimed rays get their part.
            drawn = torch.randint(len(self.moving_pixels), (movers,), device=device, generator=generator)
            places = (torch.arange(movers, device=device) * count) // movers
            chosen[places] = self.moving_pixels[drawn]
        frame, rest = chosen // (height * width), chosen % (height * width)
        return frame, rest // width, rest % width

    def _reaim(self, batch: RayBatch, start: int, cameras: Cameras, generator: torch.Generator) -> RayBatch:
        """Replace the rays from `start` on by views of the same surfaces from moved cameras."""
        frame, depth = batch.frame[start:], batch.depth[start:]
        points = batch.origins[start:] + depth[:, None] * batch.directions[start:]
        device = points.device
        shift = normalize(torch.randn(points.shape, device=device, generator=generator), dim=-1)
        reach = SPREAD * torch.rand((len(points), 1), device=device, generator=generator)
        origins = batch.origins[start:] + shift * reach * depth[:, None]
        forward = -cameras.camera_to_world[frame, :, 2]
        z = ((points - origins) * forward).sum(dim=-1)
        usable = (depth > 0) & (z > 0.2 * depth)
        free = usable & self._way_is_free(origins, points, frame, cameras)
        z = torch.where(usable, z, torch.ones_like(z))
        fallback = batch.directions[start:]
        directions = torch.where(usable[:, None], (points - origins) / z[:, None], fallback)
        origins = torch.where(usable[:, None], origins, batch.origins[start:])
        observed = torch.where(usable, free.float(), torch.ones_like(z))

        return replace(
            batch,
            origins=torch.cat([batch.origins[:start], origins]),
            directions=torch.cat([batch.directions[:start], directions]),
            depth=torch.cat([batch.depth[:start], torch.where(usable, z.detach(), depth)]),
            observed=torch.cat([batch.observed[:start], observed]),
        )

    def _carry(self, count: int, cameras: Cameras, generator: torch.Generator) -> RayBatch:
        """`count` views of carried pixels, where they were when hidden."""
        assert self.carried is not None
        known, entry = self.carried.pixels, self.carried.draw(count, generator)
        seen = self._observed(known.frame[entry], known.row[entry], known.column[entry], cameras)
        seen = self._reaim(seen, 0, cameras, generator)
        origins, directions, free = self.carried.carry(entry, seen.origins, seen.directions, seen.depth, cameras)
        return replace(
            seen,
            origins=origins,
            directions=directions,
            times=self.clip.times[known.target[entry]],
            observed=seen.observed * free,
        )

    def _novel(self, count: int, progress: Number, generator: torch.Generator) -> RayBatch:
        """`count` rays through random pixels of a few novel views, without anything observed."""
        assert self.novel is not None
        device = self.clip.valid.device
        views, times = self.novel.draw(NOVEL_CAMERAS, progress, generator)
        view = torch.arange(count, device=device) % len(views)
        pixels = torch.rand((count, 2), device=device, generator=generator) * self.novel.width
        origins, directions = views.rays(view, pixels)
        none = torch.zeros(count, device=device)
        return RayBatch(
            origins=origins,
            directions=directions,
            frame=torch.zeros_like(view),
            times=times[view],
            colour=none[:, None].expand(-1, 3),
            depth=none,
            moving=none.bool(),
            observed=none,
        )

    @torch.no_grad()
    def _way_is_free(self, origins: Tensor, points: Tensor, frame: Tensor, cameras: Cameras) -> Tensor:
        """(R,) whether the frame saw through all of the way from `origins` to `points` that lies in its view."""
        depth = self.clip.depth
        assert depth is not None
        share = torch.linspace(0.05, 0.98, CHECKS, device=points.device)[:, None, None]
        between = (origins + share * (points - origins)).reshape(-1, 3)
        camera = frame.repeat(CHECKS)
        pixels, z = cameras.project(between, camera)
        inside, pixel = cameras.in_view(pixels, z)
        surface = depth.flatten(1)[camera, pixel]
        passed = ~inside | ((surface > 0) & (z <= surface * (1 + FREE_TOLERANCE)))
        return passed.view(CHECKS, -1).all(dim=0)


def _joined(first: RayBatch, second: RayBatch) -> RayBatch:
    return RayBatch(*(torch.cat([getattr(first, f.name), getattr(second, f.name)]) for f in fields(RayBatch)))
