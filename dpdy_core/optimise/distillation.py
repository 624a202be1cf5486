"""Score distillation from the finetuned RGB-D prior at views that nobody filmed."""

from typing import Protocol

import torch
from torch import Tensor

from dpdy_core.config import SdsConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.objective import Term, weighted_sum
from dpdy_core.render.renderer import RayRendering, render_rays
from dpdy_core.scene.scene import Scene
from dpdy_core.section import Number


class Guidance(Protocol):
    """A prior that pulls rendered RGB-D images towards likely ones."""

    def loss(
        self, rgb: Tensor, depth: Tensor, act: Tensor | None, progress: Number, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A 0-dim loss for `rgb` (B, 3, H, W) in [0, 1], planar `depth` (B, 1, H, W), acting where `act` is 1."""
        ...


class Distillation:
    """The distillation steps of one run: a novel view, its rendering with gradients, the prior's loss on it."""

    def __init__(
        self,
        config: SdsConfig,
        guidance: Guidance,
        scene: Scene,
        novel: NovelViews,
        aimed: AimedViews | None,
        terms: list[Term[RayRendering]],
    ) -> None:
        """`aimed` restricts the prior to what no frame saw, in views of it; `terms` regularise the novel rays."""
        self.config, self.guidance, self.scene, self.novel = config, guidance, scene, novel
        self.aimed, self.terms = aimed, terms

    def due(self, step: int, progress: float) -> bool:
        """Whether `step` distils."""
        return progress >= self.config.begin and step % self.config.every == 0

    def loss(self, progress: Number, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of one distillation step, and numbers to report; `progress` may be a tensor."""
        cameras, times = (self.aimed or self.novel).draw(self.config.views, progress, generator)
        act = None if self.aimed is None else self.aimed.unseen(cameras, times)
        rendered = [render_view(self.scene, cameras, k, times[k], generator) for k in range(len(cameras))]
        height, width = cameras.height, cameras.width

        def images(name: str) -> Tensor:
            flat = torch.stack([getattr(r, name) for r in rendered])
            return free_of_nan(flat.view(len(rendered), height, width, -1).permute(0, 3, 1, 2))

        depth = images("depth").detach() if self.config.rgb_only else images("depth")
        sds, numbers = self.guidance.loss(images("colour"), depth, act, progress, generator)
        free = torch.stack([weighted_sum(self.terms, r, progress)[0] for r in rendered]).mean()
        if act is not None:
            numbers = {**numbers, "unseen": act.mean()}
        return self.config.weight * torch.nan_to_num(sds) + free, numbers


def free_of_nan(images: Tensor) -> Tensor:
    """`images`, whose gradient becomes 0 where it is NaN or infinite: no mishap of a prior reaches the scene."""
    if images.requires_grad:
        images.register_hook(lambda grad: torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0))
    return images


def render_view(scene: Scene, cameras: Cameras, index: int, time: Tensor, generator: torch.Generator) -> RayRendering:
    """Camera `index` rendered at `time` over a random background."""
    origins, directions = (rays.reshape(-1, 3) for rays in cameras.image_rays(index))
    background = torch.rand(3, device=origins.device, generator=generator)
    return render_rays(scene, origins, directions, time.expand(len(origins)), background, generator)
