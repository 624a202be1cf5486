"""Score distillation from the finetuned prior with motion modules, at clips that leave the input's camera."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dpdy_core.config import VideoSdsConfig
from dpdy_core.geometry.cameras import Cameras
from dpdy_core.optimise.clip_views import ANCHORS, ClipView, ClipViews
from dpdy_core.optimise.distillation import free_of_nan, render_view
from dpdy_core.optimise.objective import Term, weighted_sum
from dpdy_core.render.coverage import Coverage
from dpdy_core.render.renderer import RayRendering
from dpdy_core.scene.scene import Scene


class ClipGuidance(Protocol):
    """A prior that pulls some frames of an RGB-D clip towards likely ones."""

    def loss(
        self,
        rgb: Tensor,
        depth: Tensor,
        act: Tensor | None,
        live: Sequence[int],
        progress: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A 0-dim loss for the `live` frames of `rgb` (F, 3, S, S), planar `depth` (F, 1, S, S), acting by `act`."""
        ...


class VideoDistillation:
    """The video distillation steps of one run: a clip, its rendering, the prior's loss on some of its frames."""

    def __init__(
        self,
        config: VideoSdsConfig,
        guidance: ClipGuidance,
        scene: Scene,
        clips: ClipViews,
        coverage: Coverage | None,
        terms: list[Term[RayRendering]],
    ) -> None:
        """`coverage` restricts the prior to what no training frame saw; `terms` regularise the novel rays."""
        self.config, self.guidance, self.scene, self.clips = config, guidance, scene, clips
        self.coverage, self.terms = coverage, terms

    def due(self, step: int, progress: float) -> bool:
        """Whether `step` distils a clip."""
        return progress >= self.config.begin and step % self.config.every == 0

    def loss(
        self, step: int, progress: float, generator: torch.Generator, cameras: Cameras | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of one clip, and numbers to report; `cameras` are the training cameras as they are now.

        Which end of the clip is real and which frames are live follows from `step`, not from `generator`: drawn
        there they would have to be waited for on a GPU.
        """
        anchor = ANCHORS[step // self.config.every % len(ANCHORS)]
        clip = self.clips.draw(anchor, progress, generator, cameras)
        live = live_frames(self.clips.frames, clip.real, self.config.live, step)
        colours, depths, rendered = [], [], []
        for k in range(self.clips.frames):
            if k in live:
                rendering = render_view(self.scene, clip.cameras, k, clip.times[k], generator)
                rendered.append(rendering)
                colour, depth = self._image(rendering.colour), self._image(rendering.depth)
            else:
                colour, depth = self._still(clip, k, generator)
            colours.append(colour)
            depths.append(depth)
        rgb, depth = free_of_nan(torch.stack(colours)), free_of_nan(torch.stack(depths))
        act = None
        if self.coverage is not None:
            act = self.coverage.unseen(clip.cameras, clip.times)[:, None]
        sds, numbers = self.guidance.loss(rgb, depth, act, live, progress, generator)
        free = torch.stack([weighted_sum(self.terms, r, progress)[0] for r in rendered]).mean()
        return self.config.weight * torch.nan_to_num(sds) + free, numbers

    @torch.no_grad()
    def _still(self, clip: ClipView, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Colour (3, S, S) and depth (1, S, S) of a frame without gradient: filmed, or rendered where it was not."""
        given = k in clip.real
        if given and clip.depth is not None and self.clips.has_all_depth:
            return clip.colour[k], clip.depth[k]
        rendering = render_view(self.scene, clip.cameras, k, clip.times[k], generator)
        depth = self._image(rendering.depth)
        if not given:
            return self._image(rendering.colour), depth
        if clip.depth is not None:
            depth = torch.where(clip.depth[k] > 0, clip.depth[k], depth)
        return clip.colour[k], depth

    def _image(self, rays: Tensor) -> Tensor:
        """(C, S, S) of S * S rays."""
        size = self.clips.size
        return rays.view(size, size, -1).permute(2, 0, 1)


def live_frames(frames: int, real: Sequence[int], count: int, step: int) -> list[int]:
    """At most `count` of the frames that aren't `real`, in order, chosen by `step` alone."""
    rendered = [k for k in range(frames) if k not in real]
    order = torch.randperm(len(rendered), generator=torch.Generator().manual_seed(step)).tolist()
    return sorted(rendered[i] for i in order[:count])
