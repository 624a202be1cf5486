"""The training frames of a canonical capture with their cameras, for the depth stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import read_image, read_mask


@dataclass(frozen=True)
class PosedClip:
    """Frames in time order. Sizes are width and height."""

    capture: Path
    frames: list[dict[str, Any]]  # the document's entries
    cameras: Cameras  # of the stored images

    def images(self, size: tuple[int, int]) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB each."""
        return [read_image(self.capture / f["file_path"], size) for f in self.frames]

    def moving(self, size: tuple[int, int]) -> list[np.ndarray]:
        """(H, W) bool each."""
        still, key = np.zeros((size[1], size[0]), bool), "motion_mask_path"
        return [read_mask(self.capture / f[key], size) if key in f else still for f in self.frames]

    def ignored(self, size: tuple[int, int]) -> list[np.ndarray]:
        """(H, W) bool each: what the capture says shows nothing of the scene."""
        nothing, key = np.zeros((size[1], size[0]), bool), "mask_path"
        return [~read_mask(self.capture / f[key], size) if key in f else nothing for f in self.frames]

    def static(self, size: tuple[int, int]) -> list[np.ndarray]:
        """(H, W) bool each: neither moving nor to be ignored."""
        return [~moving & ~ignored for moving, ignored in zip(self.moving(size), self.ignored(size), strict=True)]
