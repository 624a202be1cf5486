"""Depth for the static pixels in which a sweep found none."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from dpdy_core.ingest.bilateral import means_nearby
from dpdy_core.ingest.clip import Clip
from dpdy_core.prior.push_pull import push_pull

LEAST = 0.02  # share of what is like a pixel and near it that must have depth, else colour does not count
WORKERS = 8  # frames looked at at once


def without_holes(clip: Clip) -> Clip:
    """`clip`, on the CPU, with depth for the static pixels that have none: that of those like them and near.

    It is the mean of inverse depths. A sweep finds none on plain surfaces, beside things and where few frames look;
    left alone, the scene puts fog there. Like and near is meant in bilateral space; what is like nothing there gets
    what is around it, smoothly. What moves stays as it is, and so does a frame without depth and without likeness.
    """
    if clip.depth is None:
        return clip
    still = torch.ones_like(clip.depth, dtype=torch.bool) if clip.motion is None else ~clip.motion
    known = still & (clip.depth > 0)
    inverse = torch.where(known, 1 / clip.depth.clamp_min(1e-9), 0.0)
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        nearby = means_nearby(clip.images.numpy(), torch.stack([known.float(), inverse]).numpy(), pool)
    share, total = torch.from_numpy(nearby)
    spread = push_pull(inverse[:, None], known[:, None].float())[:, 0]
    spread = torch.where(share > LEAST, total / share.clamp_min(LEAST), spread)
    holes = still & ~known & (spread > 0)
    return replace(clip, depth=torch.where(holes, 1 / spread.clamp_min(1e-9), clip.depth))
