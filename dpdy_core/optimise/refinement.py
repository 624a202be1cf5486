"""Refined novel views: painted anew by the prior where no frame saw, kept in a pool, and learnt like frames.

In place of a score at every step (SDS), whole pictures now and then: one diffusion serves hundreds of steps
(Instruct-NeRF2NeRF, section 4.2; ViDAR, section 3.2). They grow outward from what was filmed: every place is painted
once, by a view that knows what lies beside it, and shows later views what the scene has learnt of it (as Text2Room,
section 3.1, grows a mesh).
"""

from typing import Protocol

import torch
from torch import Tensor

from dpdy_core.config import RefinementConfig
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.depth_loss import aligned_depth_loss
from dpdy_core.optimise.objective import Term, weighted_sum
from dpdy_core.optimise.painted_views import PaintedRays, PaintedViews
from dpdy_core.optimise.reconstruction import colour_loss
from dpdy_core.optimise.schedule import proposal_anneal
from dpdy_core.render.renderer import RayRendering, render_camera, render_rays
from dpdy_core.scene.scene import Scene
from dpdy_core.section import Number, Ramp

CHUNK = 16384  # rays rendered at once


class Painter(Protocol):
    """A prior that completes RGB-D pictures."""

    resolution: int  # of their longer side, pixels
    multiple: int  # of which both sides must be

    def paint(
        self, rgb: Tensor, depth: Tensor, known: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Colour (B, 3, H, W) and inverse depth (B, 1, H, W) of a view, made up where `known` (B, 1, H, W) is 0."""
        ...


class Refinement:
    """The painted views of one run: when a new one is made, how it is made, and the loss on their rays."""

    def __init__(
        self,
        config: RefinementConfig,
        painter: Painter,
        scene: Scene,
        aimed: AimedViews,
        terms: list[Term[RayRendering]],
        static: Ramp | None,
        rays: int,
    ) -> None:
        """`aimed` draws views of a size that the painter takes; `terms` regularise the `rays` rays of a step.

        `static` is the weight of the static field alone where the view stood still, None without such a field.
        """
        novel = aimed.novel
        self.config, self.painter, self.scene, self.aimed, self.focal = config, painter, scene, aimed, novel.focal
        self.terms, self.static, self.count = terms, static, rays
        self.pool = PaintedViews(config.pool, novel.width, novel.height, novel.centres.device)

    def active(self, progress: float) -> bool:
        """Whether it has begun."""
        return progress >= self.config.begin

    def due(self, step: int) -> bool:
        """Whether new views are painted before `step`."""
        return step % self.config.every == 0 and self.pool.made < self.config.pool

    @torch.no_grad()
    def paint(self, progress: float, generator: torch.Generator) -> None:
        """Paint a few novel views, as many as the pool has room for, where neither frames nor views before saw."""
        count = min(self.config.views, self.config.pool - self.pool.made)
        cameras, times = self.aimed.draw(count, progress, generator)
        done = self.pool.points(self.focal)
        unseen = torch.cat([self.aimed.unseen(cameras[[k]], times[[k]], done) for k in range(len(times))])
        if not self.config.unseen_only:
            unseen = torch.ones_like(unseen)
        views = [render_camera(self.scene, cameras, k, time, CHUNK) for k, time in enumerate(times.tolist())]
        rgb = torch.stack([view.colour.permute(2, 0, 1) for view in views])
        depth = torch.stack([view.depth for view in views])[:, None]
        colour, inverse = self.painter.paint(rgb, depth, 1 - unseen, progress, generator)
        painted = (colour.isfinite().all(dim=1, keepdim=True) & inverse.isfinite()).float() * unseen
        colour, inverse = colour.nan_to_num(0.0), inverse.nan_to_num(0.0)
        still = (torch.stack([view.dynamic for view in views])[:, None] < 0.5).float()
        self.pool.put(cameras.camera_to_world, times, colour, inverse, painted, still)

    def loss(self, progress: Number, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of the painted rays of one step, and numbers to report."""
        target = self.pool.draw(self.count, self.focal, generator)
        background = torch.rand(3, device=target.origins.device, generator=generator)
        rendering = render_rays(
            self.scene,
            target.origins,
            target.directions,
            target.times,
            background,
            generator,
            proposal_anneal(progress),
            static_alone=self.static is not None,
        )
        value = painted_loss(
            rendering,
            target,
            self.scene.bounds.radius,
            self.config.depth_weight,
            self.static.at(progress) if self.static is not None else 0.0,
        )
        free, _ = weighted_sum(self.terms, rendering, progress)
        return self.config.weight.at(progress) * (value + free), {"refined": value.detach()}


def painted_loss(
    rendering: RayRendering, target: PaintedRays, unit: float, depth_weight: float, static_weight: float
) -> Tensor:
    """Squared error of colour + `depth_weight` times L1 of disparity in 1 / `unit`, over the `target` rays by weight.

    With `static_weight` the static field alone must show the colour, too, where the painted view stood still.
    """
    loss = colour_loss(rendering.colour, target.colour, target.weight)
    loss = loss + depth_weight * aligned_depth_loss(
        rendering.disparity * unit, target.inverse_depth * unit, target.weight
    )
    if rendering.static_colour is not None:
        still = target.weight * target.still
        loss = loss + static_weight * colour_loss(rendering.static_colour, target.colour, still)
    return loss
