"""The capture's own frames as RGB-D crops of their shape, for finetuning."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dpdy_core.errors import BadInput
from dpdy_core.ingest.clip import load_clip
from dpdy_core.prior.rgbd import pack
from dpdy_core.progress import Reporter

SMALLEST = 0.6  # of the frame's sides that a random crop takes
HELD_OUT_EVERY = 8  # every n-th training frame only scores the finetuning


class TrainingFrames:
    """The train split's images, depth and valid pixels on the device, cut on request."""

    def __init__(self, capture: Path, resolution: int, multiple: int, device: torch.device, reporter: Reporter) -> None:
        """Crops have the `size` (W, H) of `fitted_to_prior`. Raises BadInput if no train frame has a camera."""
        clip = load_clip(capture, "train", math.ceil(resolution / SMALLEST))
        if clip is None:
            raise BadInput("no training frame has a camera pose", "check the capture's splits and its cameras stage")
        self.size = fitted_to_prior(clip.cameras.width, clip.cameras.height, resolution, multiple)
        self.images = clip.images.permute(0, 3, 1, 2).to(device)
        self.valid = clip.valid[:, None].to(device)
        depth = np.zeros(clip.valid.shape, np.float32) if clip.depth is None else clip.depth.numpy()
        without = int((~(depth > 0).any(axis=(1, 2))).sum())
        if without:
            reporter.warn(f"{without} of {len(clip)} training frames have no depth: the prior sees them as flat")
        self.depth = torch.from_numpy(np.stack([without_holes(d) for d in depth]))[:, None].to(device)
        self.held_out = held_out_frames(len(clip))
        self.used = [i for i in range(len(clip)) if i not in self.held_out]
        if not self.held_out:
            reporter.warn("too few training frames to hold one out: the prior is scored on frames that it learnt")

    def __len__(self) -> int:
        return len(self.images)

    def random_crops(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` packed crops (B, 4, H, W) in [-1, 1] and their valid share (B, 1, H, W), of random place and scale.

        Never of the frames held out; never mirrored: a mirrored room is another room, and the model is to learn this
        one.
        """
        shares = torch.rand((count, 4), generator=generator, device="cpu").tolist()
        return self._crops([(self.used[int(i * len(self.used))], *place) for i, *place in shares])

    def fixed_crops(self, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All of `frames`, as `random_crops`."""
        return self._crops([(frame, 1.0, 0.5, 0.5) for frame in frames])

    def scored(self, count: int) -> list[int]:
        """Up to `count` frames, evenly spaced in time, that were held out; where none could be, of all."""
        frames = self.held_out or self.used
        count = min(count, len(frames))
        return [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]

    def _crops(self, places: Sequence[tuple[int, float, float, float]]) -> tuple[Tensor, Tensor]:
        """For each of `places`: which frame; how large, how far down, how far right, in [0, 1]."""
        rgb, depth, valid = [], [], []
        height, width = self.images.shape[-2:]
        for frame, size, down, right in places:
            share = SMALLEST + (1 - SMALLEST) * size
            tall, wide = max(1, round(share * height)), max(1, round(share * width))
            rows = slice(top := round(down * (height - tall)), top + tall)
            columns = slice(left := round(right * (width - wide)), left + wide)
            rgb.append(self._resized(self.images[frame : frame + 1, :, rows, columns].float() / 255))
            depth.append(self._resized(self.depth[frame : frame + 1, :, rows, columns]))
            valid.append(self._resized(self.valid[frame : frame + 1, :, rows, columns].float()))
        return pack(torch.cat(rgb), torch.cat(depth)), torch.cat(valid)

    def _resized(self, crop: Tensor) -> Tensor:
        return functional.interpolate(crop, self.size[::-1], mode="bilinear", align_corners=False, antialias=True)


def fitted_to_prior(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Width and height of pictures of the shape `width` x `height`, or a little less oblong, for a prior.

    The longer side is `resolution`, and both are multiples of `multiple`.
    """
    longer = max(width, height)
    wide, tall = (math.ceil(resolution * side / longer / multiple) * multiple for side in (width, height))
    return wide, tall


def held_out_frames(count: int) -> list[int]:
    """Which of `count` training frames only score the finetuning: one in HELD_OUT_EVERY, none of fewer than three."""
    return list(range(HELD_OUT_EVERY // 2, count, HELD_OUT_EVERY)) or ([count // 2] if count > 2 else [])


def without_holes(depth: np.ndarray) -> np.ndarray:
    """`depth` (H, W) where each pixel without depth has that of the nearest pixel with one; all 1 if there is none."""
    missing = ~(depth > 0)
    if missing.all():
        return np.ones_like(depth)
    if not missing.any():
        return depth
    _, labels = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(labels.max() + 1, depth.dtype)
    of_label[labels[~missing]] = depth[~missing]
    return of_label[labels]
