"""Rendered RGB-D views whose unknown part the run's finetuned prior paints anew."""

import torch
from torch import Tensor

from dpdy_core.config import RefinementConfig
from dpdy_core.prior.inpainting import expected, inpaint
from dpdy_core.prior.push_pull import push_pull
from dpdy_core.prior.rgbd import absolute_inverse_depth, pack
from dpdy_core.prior.rgbd_guidance import RgbdGuidance


class RgbdPainter:
    """The guidance's model and prompt, which it shares."""

    def __init__(self, guidance: RgbdGuidance, config: RefinementConfig) -> None:
        self.guidance, self.config = guidance, config
        self.resolution, self.multiple = guidance.resolution, guidance.model.multiple

    @torch.no_grad()
    def paint(
        self, rgb: Tensor, depth: Tensor, known: Tensor, progress: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Colour (B, 3, H, W) in [0, 1] and inverse depth (B, 1, H, W), painted anew where `known` (B, 1, H, W) is 0.

        `rgb` in [0, 1] and planar `depth` are a view's, of which only what is `known` counts, since what a scene shows
        where no frame saw is speckle: the prior starts from what it expects there, if it has learnt to complete and
        `config.start` says so, else from the smooth fill of `push_pull`. The painted depth has the fill's scale and
        shift. Sides are multiples of `multiple`. `progress` in [0, 1] of training sets the strength.
        """
        model, config = self.guidance.model, self.config
        text, empty = (states.expand(len(rgb), -1, -1) for states in (self.guidance.text, self.guidance.empty))
        own_inverse = 1 / depth.clamp_min(1e-6)
        filled_depth = 1 / push_pull(own_inverse, known).clamp_min(1e-6)
        rgbd = pack(push_pull(rgb, known), filled_depth)
        if config.start == "expected" and model.completes:
            rgbd = expected(model, rgbd, known, text, generator)
        strength = config.strength.at(progress)
        painted = inpaint(model, rgbd, known, text, empty, strength, config.sampling_steps, config.guidance, generator)
        colour = torch.where(known > 0.5, rgb, (painted[:, :3] / 2 + 0.5).clamp(0, 1))
        inverse = torch.where(known > 0.5, own_inverse, absolute_inverse_depth(painted[:, 3:], filled_depth))
        return colour, inverse
