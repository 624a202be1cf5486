"""Novel cameras aimed at what no training frame saw: there alone a prior has something to say."""

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.optimise.novel_views import LEAST_OBSERVED, NovelViews
from dpdy_core.optimise.observed_space import ObservedSpace
from dpdy_core.render.coverage import Coverage, Points
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.section import Number, Ramp

GLANCE = 24  # side at which candidates are compared, pixels


class AimedViews:
    """Draws cameras that circle what was filmed, each the best of `candidates`, up to `orbit` degrees off the path."""

    def __init__(
        self, novel: NovelViews, views: TrainingViews, candidates: int, orbit: Ramp, widest: bool = True
    ) -> None:
        """`novel` says where candidates stand and how large a view is; `views` are the frames as witnesses.

        `widest`: the best of the candidates is that with most unseen, else any that is good.
        """
        self.novel, self.candidates, self.orbit = novel, candidates, orbit
        self.space = ObservedSpace(views.cameras, views.depth, views.moving)
        self.side = min(GLANCE, novel.width, novel.height)
        self.coverage = Coverage(views, min(novel.width, novel.height))
        self.glance = Coverage(views, self.side) if widest else None

    def draw(self, count: int, progress: Number, generator: torch.Generator) -> tuple[Cameras, Tensor]:
        """`count` cameras for training `progress` in [0, 1], and the times (count,) at which to look.

        Each is, of its candidates that see LEAST_OBSERVED of what was filmed, that with the most unseen pixels, or the
        first; where none does, that which sees most of what was filmed: the rest look past the scene or into things.
        """
        cameras, times = self.novel.orbiting(count * self.candidates, self.orbit.at(progress), generator)
        observed = self.space.share(cameras).view(count, -1)
        if self.glance is not None:
            good = self.glance.unseen(cameras.resized(self.side, self.side), times).mean(dim=(1, 2)).view(count, -1)
        else:
            good = torch.arange(self.candidates, 0, -1, device=observed.device).expand_as(observed).float()
        best = torch.where(observed >= LEAST_OBSERVED, 1 + good, observed).argmax(dim=-1)
        chosen = torch.arange(count, device=best.device) * self.candidates + best
        return cameras[chosen], times[chosen]

    def unseen(self, cameras: Cameras, times: Tensor, painted: Points | None = None) -> Tensor:
        """(N, 1, H, W) float, 1 where no frame saw what the `cameras` see at `times` (N,), nor was it `painted`."""
        return self.coverage.unseen(cameras, times, painted)[:, None]
