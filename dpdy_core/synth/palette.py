"""Named colours and which textures and object kinds belong to which split.

The prior is trained on split "train" only. Split "held-out", and all captures, use textures and kinds of objects that
the training split never draws, so that the prior is judged on things that it never saw. Shared by both are what a
picture cannot do without: the named colours, lights, the two settings (room, open ground) and the basic surfaces
(ellipsoid, box, frustum, capsule, torus) that objects of all kinds are put together from.
"""

import torch
from torch import Tensor

from dpdy_core.synth.textures import TEXTURE_NAMES

COLOURS: dict[str, tuple[float, float, float]] = {  # sRGB
    "red": (0.82, 0.18, 0.15),
    "orange": (0.93, 0.50, 0.13),
    "yellow": (0.95, 0.80, 0.22),
    "lime": (0.62, 0.78, 0.22),
    "green": (0.20, 0.55, 0.25),
    "teal": (0.12, 0.56, 0.55),
    "cyan": (0.40, 0.78, 0.88),
    "blue": (0.18, 0.36, 0.75),
    "purple": (0.48, 0.26, 0.66),
    "pink": (0.94, 0.55, 0.68),
    "brown": (0.50, 0.32, 0.19),
    "beige": (0.87, 0.77, 0.60),
    "white": (0.93, 0.92, 0.89),
    "grey": (0.55, 0.55, 0.56),
    "black": (0.13, 0.13, 0.15),
}
COLOUR_NAMES = tuple(COLOURS)

TRAIN_TEXTURES = ("plain", "checkered", "striped", "ringed", "brick", "dotted", "marble")
HELD_OUT_TEXTURES = ("wooden", "tiled", "patched", "zigzag")


def texture_numbers(names: tuple[str, ...]) -> Tensor:
    """Indices into TEXTURE_NAMES."""
    return torch.tensor([TEXTURE_NAMES.index(name) for name in names])


def linear(srgb: Tensor) -> Tensor:
    """Linear light of sRGB values (IEC 61966-2-1), both in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def display(light: Tensor) -> Tensor:
    """sRGB in [0, 1] of linear light >= 0; highlights roll off above 0.8 instead of clipping."""
    rolled = torch.where(light > 0.8, 0.8 + 0.2 * torch.tanh((light - 0.8) / 0.2), light).clamp(0, 1)
    return torch.where(rolled <= 0.0031308, rolled * 12.92, 1.055 * rolled.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def colour_table() -> Tensor:
    """(colours, 3) sRGB in the order of COLOUR_NAMES."""
    return torch.tensor(list(COLOURS.values()))
