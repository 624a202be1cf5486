"""Pictures whose unknown part is filled from its surroundings, smoothly."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

LEAST = 1e-6  # share of known pixels below which a cell knows nothing


def push_pull(pictures: Tensor, known: Tensor) -> Tensor:
    """`pictures` (B, C, H, W) with what is not `known` (B, 1, H, W; in [0, 1]) filled by the means around it.

    Pull: halve the picture, each cell the mean of its known pixels, until one cell is left. Push: going back up, a
    cell that knows only a share of itself takes the rest from the coarser level (Gortler et al. 1996, "The Lumigraph",
    section 3.4.1, with means in place of sums). Pixels that are known come back as they are; where nothing is known
    at all the result is 0.
    """
    height, width = pictures.shape[2:]
    mean = torch.where(known > LEAST, pictures, 0.0)
    if height == width == 1:
        return mean
    total, share = (avg_pool2d(x, 2, ceil_mode=True) for x in (mean * known, known))
    coarse = push_pull(total / share.clamp_min(LEAST), share)
    return known * mean + (1 - known) * interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
