"""The capture's own frames as square RGB-D crops for finetuning."""

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dpdy_core.errors import BadInput
from dpdy_core.ingest.clip import load_clip, read_transforms
from dpdy_core.prior.rgbd import pack
from dpdy_core.progress import Reporter

SPARE = 1.5  # shorter side of the loaded frames, in crop sides
SMALLEST = 0.6  # of the shorter side that a random crop takes


class TrainingFrames:
    """The train split's images, depth and valid pixels on the device, cut on request."""

    def __init__(self, capture: Path, resolution: int, device: torch.device, reporter: Reporter) -> None:
        """Raises BadInput if no train frame has a camera."""
        document = read_transforms(capture)
        aspect = max(document["w"], document["h"]) / min(document["w"], document["h"])
        clip = load_clip(capture, "train", math.ceil(SPARE * resolution * aspect))
        if clip is None:
            raise BadInput("no training frame has a camera pose", "check the capture's splits and its cameras stage")
        self.resolution = resolution
        self.images = clip.images.permute(0, 3, 1, 2).to(device)
        self.valid = clip.valid[:, None].to(device)
        depth = np.zeros(clip.valid.shape, np.float32) if clip.depth is None else clip.depth.numpy()
        without = int((~(depth > 0).any(axis=(1, 2))).sum())
        if without:
            reporter.warn(f"{without} of {len(clip)} training frames have no depth: the prior sees them as flat")
        self.depth = torch.from_numpy(np.stack([without_holes(d) for d in depth]))[:, None].to(device)

    def __len__(self) -> int:
        return len(self.images)

    def random_crops(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` packed crops (B, 4, S, S) in [-1, 1] and their valid share (B, 1, S, S), of random place and scale.

        Never mirrored: a mirrored room is another room, and the model is to learn this one.
        """
        return self._crops(torch.rand((count, 4), generator=generator, device="cpu").tolist())

    def fixed_crops(self, count: int) -> tuple[Tensor, Tensor]:
        """The largest central crops of up to `count` frames evenly spaced in time, as `random_crops`."""
        count = min(count, len(self))
        return self._crops([[(i + 0.5) / count, 1.0, 0.5, 0.5] for i in range(count)])

    def _crops(self, shares: list[list[float]]) -> tuple[Tensor, Tensor]:
        """Each row of `shares` in [0, 1]: which frame, how large, how far down, how far right."""
        packed, valid = [], []
        height, width = self.images.shape[-2:]
        for frame, size, down, right in shares:
            index = min(int(frame * len(self)), len(self) - 1)
            side = max(1, round(min(height, width) * (SMALLEST + (1 - SMALLEST) * size)))
            rows = slice(top := round(down * (height - side)), top + side)
            columns = slice(left := round(right * (width - side)), left + side)
            rgb = self._resized(self.images[index : index + 1, :, rows, columns].float() / 255)
            depth = self._resized(self.depth[index : index + 1, :, rows, columns])
            packed.append(pack(rgb, depth))
            valid.append(self._resized(self.valid[index : index + 1, :, rows, columns].float()))
        return torch.cat(packed), torch.cat(valid)

    def _resized(self, crop: Tensor) -> Tensor:
        size = (self.resolution, self.resolution)
        return functional.interpolate(crop, size, mode="bilinear", align_corners=False, antialias=True)


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
