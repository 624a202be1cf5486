"""Procedural two-colour patterns over surface coordinates.

A pattern maps cells (2, N), surface coordinates divided by the texture's scale, to the share (N,) of the second
colour in [0, 1]. `turn` (N,) is the whole number of cells after which the first coordinate repeats (0: never), so
that patterns close round a cylinder.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

NOISE_SIZE = 256
NOISE_CELLS = 16  # cells of a texture in one period of the noise


@lru_cache(maxsize=4)
def _noise_table(device: torch.device) -> Tensor:
    """(NOISE_SIZE^2,) periodic noise in [0, 1] whose amplitude falls with frequency, uniformly distributed."""
    generator = torch.Generator().manual_seed(20240110)
    white = torch.fft.rfft2(torch.randn(NOISE_SIZE, NOISE_SIZE, generator=generator, dtype=torch.float64))
    fy, fx = torch.fft.fftfreq(NOISE_SIZE), torch.fft.rfftfreq(NOISE_SIZE)
    frequency = torch.hypot(fy[:, None], fx[None]) * NOISE_SIZE
    # flat up to one wave in three cells, then pink
    values = torch.fft.irfft2(white / torch.clamp(frequency, NOISE_CELLS / 3) ** 1.6 * (frequency > 0.5))
    ranks = torch.empty(values.numel(), dtype=torch.float32)
    ranks[values.flatten().argsort()] = torch.linspace(0, 1, values.numel())
    return ranks.to(device)


def noise(cells: Tensor) -> Tensor:
    """(N,) smooth noise in [0, 1] with several octaves, bilinear from a periodic table."""
    table = _noise_table(cells.device)
    scaled = cells * (NOISE_SIZE / NOISE_CELLS)
    low = scaled.floor()
    part = scaled - low
    x, y = low.to(torch.int32).remainder(NOISE_SIZE)
    x1, y1 = (x + 1).remainder(NOISE_SIZE), (y + 1).remainder(NOISE_SIZE) * NOISE_SIZE
    y0 = y * NOISE_SIZE
    low_row = torch.lerp(table.index_select(0, x + y0), table.index_select(0, x1 + y0), part[0])
    high_row = torch.lerp(table.index_select(0, x + y1), table.index_select(0, x1 + y1), part[0])
    return torch.lerp(low_row, high_row, part[1])


def _cell_value(cell: Tensor, turn: Tensor) -> Tensor:
    """(N,) a random number in [0, 1] for each whole cell (2, N)."""
    u = torch.where(turn > 0, cell[0].remainder(turn.clamp_min(1)), cell[0])
    x = (u * 37 + cell[1] * 101).to(torch.int32).remainder(NOISE_SIZE)
    y = (u * 59 + cell[1] * 23).to(torch.int32).remainder(NOISE_SIZE)
    return _noise_table(cell.device).index_select(0, x + y * NOISE_SIZE)


def mirrored(cells: Tensor, turn: Tensor) -> Tensor:
    """Cells whose first coordinate has no seam: a turn goes forth and back."""
    return torch.stack([torch.where(turn > 0, cells[0].abs(), cells[0]), cells[1]])


def plain(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    return torch.zeros_like(cells[0])


def checker(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    # two squares a cell, so that they close after a turn
    squares = (cells * 2).floor()
    return (squares[0] + squares[1]).remainder(2)


def stripes(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    return (cells[0].remainder(1) < 0.5).float()


def rings(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    return (cells[1].remainder(1) < 0.5).float()


def bricks(cells: Tensor, turn: Tensor) -> Tensor:
    """Second colour: mortar; bricks differ a little."""
    row = (cells[1] * 2).floor()
    along = cells[0] + 0.5 * row.remainder(2)
    joint = ((along.remainder(1) < 0.07) | ((cells[1] * 2).remainder(1) < 0.14)).float()
    return torch.maximum(joint, 0.3 * _cell_value(torch.stack([along.floor(), row]), turn))


def dots(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    offset = cells.remainder(1) - 0.5
    return (offset[0] ** 2 + offset[1] ** 2 < 0.09).float()


def marble(cells: Tensor, turn: Tensor) -> Tensor:
    return ((noise(mirrored(cells, turn)) - 0.5) * 2.2 + 0.5).clamp(0, 1)


def wood(cells: Tensor, turn: Tensor) -> Tensor:
    """Planks along u, each with its own grain and tone; dark joints."""
    plank = (cells[1] * 2).floor()
    along = torch.where(turn > 0, cells[0].abs(), cells[0]) / 3 + 0.37 * plank.remainder(7)
    tone = _cell_value(torch.stack([along.floor(), plank]), torch.zeros_like(turn))
    grain = noise(torch.stack([along * 0.6 + 5 * tone, cells[1] * 2.5 + 9 * tone]))
    joint = ((cells[1] * 2).remainder(1) < 0.04) | (along.remainder(1) < 0.008)
    return torch.where(joint, torch.ones_like(grain), 0.55 * (grain * 5).remainder(1) * grain + 0.4 * tone)


def tiles(cells: Tensor, turn: Tensor) -> Tensor:
    """Tiles of different tones with joints of the second colour."""
    part = cells.remainder(1)
    joint = (part[0] < 0.07) | (part[1] < 0.07)
    tone = 0.5 * _cell_value(cells.floor(), turn)
    return torch.where(joint, torch.ones_like(tone), tone)


def patches(cells: Tensor, turn: Tensor) -> Tensor:
    """Blots in three steps between the two colours."""
    value = noise(mirrored(cells, turn) * 0.8)
    return ((value * 3).floor() / 2).clamp(0, 1)


def zigzag(cells: Tensor, turn: Tensor) -> Tensor:  # noqa: ARG001
    wave = (cells[0].remainder(1) - 0.5).abs()
    return ((cells[1] + wave).remainder(1) < 0.5).float()


# the order is that of `World.texture`; the number is the mean of the pattern, to which it fades when it is too fine
TEXTURES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "plain": (plain, 0.0),
    "checkered": (checker, 0.5),
    "striped": (stripes, 0.5),
    "ringed": (rings, 0.5),
    "brick": (bricks, 0.32),
    "dotted": (dots, 0.28),
    "marble": (marble, 0.5),
    "wooden": (wood, 0.35),
    "tiled": (tiles, 0.35),
    "patched": (patches, 0.5),
    "zigzag": (zigzag, 0.5),
}
TEXTURE_NAMES = tuple(TEXTURES)
