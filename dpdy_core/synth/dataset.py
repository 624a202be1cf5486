"""Batches of captioned RGB-D images for the bundled prior.

Split "train" never draws a kind of object or a texture that split "held-out" or a capture uses (`TRAIN_KINDS` against
`HELD_OUT_KINDS`, `TRAIN_TEXTURES` against `HELD_OUT_TEXTURES`); what both share is said in `synth.palette`. Different
seeds are up to the caller, who owns the generator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.synth.captions import describe, see
from dpdy_core.synth.shading import draw
from dpdy_core.synth.stills import Dice, Split, draw_stills

REFINED = 0.3  # share of the pixels that get 2x2 samples


@dataclass(frozen=True)
class RgbdBatch:
    """B square images of S pixels."""

    rgb: Tensor  # (B, 3, S, S) in [0, 1]
    depth: Tensor  # (B, 1, S, S) planar z > 0, metres
    captions: list[str]


def sample_batch(
    count: int, size: int, generator: torch.Generator, device: torch.device | str, split: Split
) -> RgbdBatch:
    """`count` new scenes of `split`, each seen once by a camera of `size` x `size` pixels.

    Scenes are drawn on the CPU from `generator` (of any device) and rendered on `device`.
    """
    stills = draw_stills(count, size, generator, split)
    images = draw(stills.world.to(device), stills.cameras.to(device), REFINED)
    return RgbdBatch(images.rgb, images.depth, describe(stills, see(stills, images), Dice(generator)))
