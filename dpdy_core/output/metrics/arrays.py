"""What metrics take: arrays or tensors, brought to float64 tensors of one device."""

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor


def as_images(a: Array, b: Array) -> tuple[Tensor, Tensor]:
    """Two pictures (H, W, 3) of floats in [0, 1] as float64. Raises ValueError for others."""
    x, y = torch.as_tensor(a), torch.as_tensor(b)
    if x.ndim != 3 or x.shape[-1] != 3 or x.shape != y.shape:
        raise ValueError(f"images must both be (H, W, 3), not {tuple(x.shape)} and {tuple(y.shape)}")
    if not (x.is_floating_point() and y.is_floating_point()):
        raise ValueError("images must be floats in [0, 1]: divide 8-bit images by 255")
    return x.double(), y.to(x.device).double()


def as_mask(mask: Array, like: Tensor) -> Tensor:
    """A mask (H, W) or (H, W, 1), non-zero where it holds, as bool of the size of `like` (H, W, ...)."""
    tensor = torch.as_tensor(mask, device=like.device)
    tensor = tensor[..., 0] if tensor.ndim == 3 and tensor.shape[-1] == 1 else tensor
    if tensor.shape != like.shape[:2]:
        raise ValueError(f"the mask is {tuple(tensor.shape)}, the image {tuple(like.shape[:2])}")
    return tensor != 0
