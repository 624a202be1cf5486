"""Covisible masks of held-out images that have none: dycheck's tools/process_covisible.py with another flow.

A pixel of a held-out image counts as seen in a training frame when the flow there and back ends where it began (check
of Brox and of Sundaram et al.) and the frame's own mask holds where it arrives. It is covisible when it is seen in more
than max(5, a tenth of the training frames). The published masks are of RAFT; here the flow is DIS.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from dpdy_core.ingest.clip import Clip, read_mask, read_transforms
from dpdy_core.ingest.flow import consistent, flow_pair, grey, pixel_grid
from dpdy_core.rundir import read_json, write_json

LEAST_FRAMES, LEAST_SHARE = 5, 0.1
FLOW = "DIS flow (Kroeger et al. 2016; OpenCV, preset medium)"
RECORD = "flow.json"


def complete_covisible(
    capture: Path, clip: Clip, train: Clip, folder: Path, earlier: Path, check: Callable[[], None]
) -> tuple[Clip, int]:
    """`clip` with a covisible mask for every view, and how many were missing; those are written to `folder`.

    Masks that an evaluation wrote to `earlier` from the same pictures are taken from there. `check` may raise to stop.
    """
    given = {frame["file_path"] for frame in read_transforms(capture)["frames"] if "covisible_path" in frame}
    missing = [view for view, name in enumerate(clip.names) if name not in given]
    if not missing:
        return clip, 0
    record = {"flow": FLOW, "images": _digest(clip, train)}
    known = (earlier / RECORD).is_file() and read_json(earlier / RECORD) == record
    size = (clip.cameras.width, clip.cameras.height)
    masks = torch.zeros_like(clip.valid) if clip.covisible is None else clip.covisible.clone()
    frames = [grey(image.numpy()) for image in train.images]
    valid = train.valid.numpy()
    folder.mkdir()
    for view in missing:
        name = f"{view:04d}_{Path(clip.names[view]).stem}.png"
        if known and (earlier / name).is_file():
            mask = read_mask(earlier / name, size)
        else:
            mask = covisible(grey(clip.images[view].numpy()), frames, valid, check)
        masks[view] = torch.from_numpy(mask)
        cv2.imwrite(str(folder / name), mask.astype(np.uint8) * 255)
    write_json(folder / RECORD, record)
    return replace(clip, covisible=masks), len(missing)


def covisible(
    image: np.ndarray, frames: list[np.ndarray], valid: np.ndarray, check: Callable[[], None] = lambda: None
) -> np.ndarray:
    """(H, W) bool: which pixels of `image` enough of `frames` saw, all (H, W) uint8; `valid` (T, H, W) bool."""
    seen = np.zeros(image.shape, int)
    grid = pixel_grid(image.shape[1], image.shape[0])
    for frame, own in zip(frames, valid, strict=True):
        check()
        forward, backward = flow_pair(image, frame)
        there = cv2.remap(own.astype(np.float32), grid + forward, None, cv2.INTER_LINEAR)
        seen += consistent(forward, backward) & (there > 1 - 1e-3)
    return seen > max(LEAST_FRAMES, int(LEAST_SHARE * len(frames)))


def _digest(clip: Clip, train: Clip) -> str:
    digest = hashlib.sha256()
    for pictures in (clip.images, train.images, train.valid):
        digest.update(f"{tuple(pictures.shape)}\n".encode() + pictures.numpy().tobytes())
    return digest.hexdigest()
