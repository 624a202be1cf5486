"""Second motion masks of a run: those found by flow, redrawn in the depth stage; first ones stay as they are."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.ingest.clip import fitted_size
from dpdy_core.ingest.masks import ESTIMATED, write_mask
from dpdy_core.ingest.pieces import resized_masks
from dpdy_core.ingest.portions import Portions
from dpdy_core.ingest.posed_clip import PosedClip
from dpdy_core.ingest.refine import refined_masks
from dpdy_core.rundir import RunDir

FOLDER = "refined_masks"
ONE_PLACE = 1e-6  # camera units: cameras within this see the same whatever the depth is

StaticDepth = Callable[[np.ndarray], np.ndarray]  # (T, h, w) bool static pixels to their (T, h, w) depth, 0 = none


def restore_masks(frames: list[dict[str, Any]]) -> None:
    """Let the first masks of `frames` count again: a stage that starts anew starts from the same."""
    for frame in frames:
        if ESTIMATED in frame:
            frame["motion_mask_path"] = frame[ESTIMATED]


def static_parts(depth: list[np.ndarray], longest: int) -> StaticDepth:
    """The `depth` (H, W) of each frame, at most `longest` pixels long, where it is static."""
    size = fitted_size(depth[0].shape[1], depth[0].shape[0], longest)
    small = np.stack([cv2.resize(values, size, interpolation=cv2.INTER_NEAREST) for values in depth])
    return lambda static: np.where(resized_masks(static, size), small, 0).astype(np.float32)


def to_be_refined(clip: PosedClip, config: RunConfig) -> bool:
    """Whether masks of `clip` were found by flow and are to be redrawn."""
    return config.masks.refine and any(ESTIMATED in frame for frame in clip.frames)


def refine_masks(
    run: RunDir, clip: PosedClip, believed: StaticDepth | None, config: RunConfig, portions: Portions
) -> tuple[dict[str, float], np.ndarray | None]:
    """Redraw those masks of `clip` that were found by flow, in `capture/refined_masks/`, and let them count.

    `believed` gives the depth of static pixels; without it only a camera that stays in one place tells what is behind.
    The answer is how much of the redrawn frames moves, by flow and now, and (T, h, w) bool what is masked for its
    likeness alone; nothing where nothing is redrawn.
    """
    if not to_be_refined(clip, config):
        return {}, None
    if believed is None:
        if np.ptp(clip.cameras.centres.numpy(), axis=0).max() > ONE_PLACE:
            portions.reporter.fall_back("without depth motion masks stay as flow draws them")
            return {}, None
        believed = _anywhere
    full = (clip.cameras.width, clip.cameras.height)
    size = fitted_size(*full, config.masks.max_size)
    first, ignored = np.stack(clip.moving(size)), np.stack(clip.ignored(size))
    images = np.stack(clip.images(size))
    masks, resting = refined_masks(images, first, ignored, believed, clip.cameras, portions.part("masks"))
    estimated = [ESTIMATED in frame for frame in clip.frames]
    for frame, mask, chosen in zip(clip.frames, masks, estimated, strict=True):
        if chosen:
            frame["motion_mask_path"] = write_mask(run, FOLDER, frame, mask, full)
    shares = {"moving_by_flow": float(first[estimated].mean()), "moving_refined": float(masks[estimated].mean())}
    return shares, resting & np.array(estimated)[:, None, None]


def _anywhere(static: np.ndarray) -> np.ndarray:
    """One depth for all pixels: seen from one place, all depths look the same."""
    return static.astype(np.float32)
