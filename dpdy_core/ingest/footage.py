"""The pictures of a capture as camera tracking sees them: reduced, with what moves masked."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.ingest.clip import frames_of, read_image, read_mask
from dpdy_core.ingest.flow import grey
from dpdy_core.ingest.metadata import focal_share
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.sparse_model import Intrinsics
from dpdy_core.rundir import RunDir

STILL_SIZE = 480  # longer side at which a static camera is looked for, pixels
INTRINSICS = ("fl_x", "fl_y", "cx", "cy")


@dataclass(frozen=True)
class Footage:
    """Frames by short names that sort by time within each part."""

    capture: Path
    frames: dict[str, dict[str, Any]]  # the documents' entries by short name
    train: list[str]
    held_out: list[str]
    size: tuple[int, int]  # width and height of the matched images
    full: tuple[int, int]  # of the stored ones
    known: Intrinsics | None  # given, of the matched images
    focal_hint: float | None  # of the file's tags, over the longer side

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the matched images, pixels."""
        return self.size[0] / 2, self.size[1] / 2

    @property
    def scale(self) -> np.ndarray:
        """(2,) from pixels of the matched images to those of the stored ones."""
        return np.array(self.full) / np.array(self.size)

    def _moving(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool motion mask."""
        if "motion_mask_path" not in self.frames[name]:
            return np.zeros((size[1], size[0]), bool)
        return read_mask(self.capture / self.frames[name]["motion_mask_path"], size)

    def _static(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool: neither near what moves, for features reach beyond their centre, nor to be ignored."""
        reach = max(3, round(0.01 * max(size)))
        around = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        static = cv2.dilate(self._moving(name, size).astype(np.uint8), around) == 0
        if "mask_path" in self.frames[name]:
            static &= read_mask(self.capture / self.frames[name]["mask_path"], size)
        return static

    def small(self, check: Callable[[], None]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Training frames at STILL_SIZE, (H, W) uint8 each, and what of them is static, (H, W) bool each."""
        size = fitted_size(*self.full, STILL_SIZE)
        greys, static = [], []
        for name in self.train:
            check()
            greys.append(grey(read_image(self.capture / self.frames[name]["file_path"], size)))
            static.append(self._static(name, size))
        return greys, static

    def write_images(self, workspace: Path, check: Callable[[], None]) -> float:
        """Write `images/` of all frames and `masks/` of the training frames; the mean share that moves."""
        shares = []
        for name, frame in self.frames.items():
            check()
            rgb = read_image(self.capture / frame["file_path"], self.size)
            cv2.imwrite(str(workspace / "images" / name), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        for name in self.train:
            check()
            if "motion_mask_path" in self.frames[name]:
                shares.append(self._moving(name, self.size).mean())
            mask = np.where(self._static(name, self.size), 255, 0).astype(np.uint8)
            cv2.imwrite(str(workspace / "masks" / f"{name}.png"), mask)
        return float(np.mean(shares)) if shares else 0.0

    def queries(self, placed: list[str], neighbours: int) -> dict[str, list[str]]:
        """The `placed` training frames to compare each held-out frame with: near in time, and all over the clip."""
        spread = placed[:: max(1, len(placed) // (neighbours // 2))]
        found = {}
        for name in self.held_out:
            time = self.frames[name]["time"]
            near = sorted(placed, key=lambda other: abs(self.frames[other]["time"] - time))[: neighbours // 2]
            found[name] = list(dict.fromkeys(near + spread))
        return found


def footage_of(capture: Path, document: dict[str, Any], max_size: int) -> Footage:
    """The footage of a canonical capture, matched at most `max_size` pixels long."""
    train = frames_of(document, "train")
    held_out = frames_of(document, "val") + frames_of(document, "test")
    names = {f"{i:05d}.png": frame for i, frame in enumerate(train + held_out)}
    full = (int(document["w"]), int(document["h"]))
    size = fitted_size(*full, max_size)
    film = document.get("focal_35mm")
    return Footage(
        capture=capture,
        frames=names,
        train=list(names)[: len(train)],
        held_out=list(names)[len(train) :],
        size=size,
        full=full,
        known=_known_intrinsics(document, size),
        focal_hint=None if film is None else focal_share(float(film), *full),
    )


def _known_intrinsics(document: dict[str, Any], size: tuple[int, int]) -> Intrinsics | None:
    if document.get("pose_source") == "sfm" or not all(key in document for key in INTRINSICS):
        return None
    x, y = size[0] / float(document["w"]), size[1] / float(document["h"])
    fx, fy, cx, cy = (float(document[key]) for key in INTRINSICS)
    return Intrinsics(fx * x, fy * y, cx * x, cy * y)


@contextmanager
def scratch_folder(run: RunDir) -> Iterator[Path]:
    """A folder inside the run that is gone afterwards; what a killed run left is removed first."""
    folder = run.root / ".sfm.partial"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "images").mkdir(parents=True)
        (folder / "masks").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
