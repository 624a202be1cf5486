"""RGB-D images as pictures for people."""

from pathlib import Path

import cv2
import torch
from torch import Tensor

from dpdy_core.rundir import write_atomic


def tiles(rgb: Tensor, depth: Tensor, dim: int) -> Tensor:
    """`rgb` (B, 3, H, W) and relative inverse `depth` (B, 1, H, W) in [0, 1], above (`dim` -2) or beside (-1)."""
    return torch.cat([rgb, depth.expand_as(rgb)], dim=dim)


def grid(images: Tensor, columns: int) -> Tensor:
    """(B, 3, H, W) as one (3, rows H, columns W) picture, black where there is no image left."""
    missing = -len(images) % columns
    padded = torch.cat([images, images.new_zeros((missing, *images.shape[1:]))])
    rows = padded.reshape(-1, columns, *images.shape[1:])
    return rows.permute(2, 0, 3, 1, 4).reshape(images.shape[1], -1, columns * images.shape[3])


def write_picture(path: Path, picture: Tensor) -> None:
    """Write `picture` (3, H, W) in [0, 1] as 8-bit PNG, atomically."""
    array = (picture.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    write_atomic(path, lambda partial: _write(partial, cv2.cvtColor(array, cv2.COLOR_RGB2BGR)))


def _write(path: Path, array: object) -> None:
    if not cv2.imwrite(str(path), array):
        raise OSError(f"{path} could not be written")
