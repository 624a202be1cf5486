"""Pictures with a hidden part: what a prior that completes them is shown beside the noise, and how it learns to."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from dpdy_core.prior.push_pull import push_pull

COMPLETED_SHARE = 0.5  # of the rows of a batch that are shown a picture to complete
FROM_NOISE_SHARE = 0.3  # of those, the rows that see noise alone where the picture is hidden: they learn its mean
KNOWN_WEIGHT = 0.1  # of known latents beside hidden ones
CELL = 2  # pixels a side in which one camera's surfaces hide each other
SHARPEST = 0.04  # of the range of inverse depth: what lies that much behind another surface is hidden by it
SMOOTHED = 5  # pixels: holes and islands smaller than that are closed
LARGEST_SHIFT = 0.6  # of half the picture, from depth and from turning each
LARGEST_ROLL = 0.15  # radians


def known_latents(known: Tensor, reduction: int) -> Tensor:
    """(B, 1, h, w): 1 where all pixels of `known` (B, 1, H, W) that belong to a latent are 1, else 0."""
    return 1 - max_pool2d((known < 0.5).to(known.dtype), reduction)


def filled(rgbd: Tensor, known: Tensor) -> Tensor:
    """`rgbd` (B, 4, H, W) with a smooth fill where `known` (B, 1, H, W) is 0, which hides what was there."""
    return push_pull(rgbd, (known > 0.5).to(rgbd.dtype))


def sometimes(context: Tensor, generator: torch.Generator) -> Tensor:
    """`context` (B, C, h, w) in a share of the rows, and that of no picture, 0, in the others."""
    chance = torch.rand((len(context), 1, 1, 1), generator=generator, device=generator.device)
    return context * (chance < COMPLETED_SHARE).to(context)


def completion_timesteps(timesteps: Tensor, context: Tensor, total: int, generator: torch.Generator) -> Tensor:
    """`timesteps` (B,), of which some become the last in rows that have a `context` (B, C, h, w)."""
    chance = torch.rand(len(timesteps), generator=generator, device=generator.device).to(timesteps.device)
    completed = (context != 0).flatten(1).any(dim=1)
    return torch.where(completed & (chance < FROM_NOISE_SHARE), total - 1, timesteps)


def hidden_weight(context: Tensor) -> Tensor:
    """(B, 1, h, w), of mean 1 in each row: how much a latent counts, one that is hidden more than one that is shown."""
    weight = 1 - (1 - KNOWN_WEIGHT) * context[:, :1]
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)


def seen_from_beside(inverse_depth: Tensor, generator: torch.Generator) -> Tensor:
    """Which pixels of views a camera beside them sees, too: (B, 1, H, W) of 1 and 0.

    `inverse_depth` (B, 1, H, W) in [-1, 1], near = 1, as `rgbd.pack` has it. A random camera for each shifts, turns and
    scales the picture, near things more than far ones; seen is what falls into its frame and lies there behind nothing.
    So what is hidden has the shapes of what new views of a scene lack: bands at the borders, shadows beside things.
    """
    nearness = (inverse_depth[:, 0].float() + 1) / 2
    count, height, width = nearness.shape
    device = nearness.device

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand((count, 1, 1), generator=generator, device=generator.device)
        return low + (high - low) * drawn.to(device)

    y, x = (torch.linspace(-1, 1, side, device=device) for side in (height, width))
    x, y = x.expand(height, width), y[:, None].expand(height, width)
    roll, scale = uniform(-LARGEST_ROLL, LARGEST_ROLL), uniform(0.8, 1.25)
    heading = uniform(0, 2 * torch.pi)
    shift = LARGEST_SHIFT * uniform(0, 1) * (nearness - 0.5)
    # pictures are two units wide; cameras move across more than up and down
    across = scale * (roll.cos() * x - roll.sin() * y) + heading.cos() * shift + LARGEST_SHIFT * uniform(-1, 1)
    down = scale * (roll.sin() * x + roll.cos() * y) + heading.sin() * shift + 0.6 * LARGEST_SHIFT * uniform(-1, 1)
    columns, rows = width // CELL, height // CELL
    column, row = ((across + 1) / 2 * columns).floor().long(), ((down + 1) / 2 * rows).floor().long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    cell = torch.where(inside, row * columns + column, rows * columns).flatten(1)  # one more for what falls outside
    nearest = nearness.new_zeros((count, rows * columns + 1)).scatter_reduce(1, cell, nearness.flatten(1), "amax")
    seen = inside & (nearness >= nearest.gather(1, cell).view_as(nearness) - SHARPEST)
    share = avg_pool2d(seen[:, None].float(), SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False)
    return (share > 0.5).float()
