"""Stage masks: which pixels of the training frames move."""

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.ingest.clip import frames_of, load_cameras, read_image, read_transforms, write_transforms
from dpdy_core.ingest.flow import grey
from dpdy_core.ingest.motion import motion_scores
from dpdy_core.ingest.pieces import whole_movers, without_specks
from dpdy_core.ingest.pinhole import Pinhole, pinholes
from dpdy_core.ingest.size import fitted_size
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, write_atomic
from dpdy_core.runtime import resolve_device

if TYPE_CHECKING:
    from dpdy_core.ingest.segments import SegmentModel

ESTIMATED = "estimated_mask_path"  # of a frame: its first mask, found by flow, which the depth stage may refine
REFERENCE_SIZE = 480  # the size that config.masks.threshold is meant for
SURE, LIKELY, UNLIKELY = 2.5, 1.3, 0.6  # scores that start the cut along colour edges
GUIDE_RADIUS = 8
GUIDE_EPSILON = 1e-3


def estimate_masks(run: RunDir, config: RunConfig, reporter: Reporter) -> None:
    """Stage: give the training frames that lack one a motion mask in `capture/motion_masks/`, 255 = moving.

    Test and val frames are not looked at. Where the capture has poses and the settings allow their use, they say what
    the camera did between two frames; else a fundamental matrix or homography is fitted to the flow. Masks found so
    are first ones: they stand under ESTIMATED too, and the depth stage refines them. With `config.masks.model` the
    outlines of people, animals and vehicles are the model's, flow decides which of them move, and that is final.
    """
    document = read_transforms(run.capture)
    frames = frames_of(document, "train")
    source = config.masks.source
    if source == "none":
        for frame in frames:
            frame.pop("motion_mask_path", None)
        write_transforms(run.capture, document)
        return
    lacking = [f for f in frames if source == "epipolar" or "motion_mask_path" not in f]
    if not lacking or source == "capture":
        if lacking:
            reporter.fall_back(f"{len(lacking)} of {len(frames)} training frames have no motion mask: taken as static")
        return
    size = fitted_size(int(document["w"]), int(document["h"]), config.masks.max_size)
    images = [read_image(run.capture / f["file_path"], size) for f in frames]
    scores = _scores(images, config.masks.threshold * max(size) / REFERENCE_SIZE, frames, document, config, reporter)
    model = None if config.masks.model is None else _segments(config.masks.model, config)
    for number, (image, score, frame) in enumerate(zip(images, scores, frames, strict=True), start=1):
        reporter.check()
        if frame in lacking:
            mask = motion_mask(image, score)
            if model is not None:
                mask = whole_movers(mask, model.predict(image))
                reporter.step(number, len(frames))
            path = write_mask(run, "motion_masks", frame, mask, (int(document["w"]), int(document["h"])))
            frame["motion_mask_path"] = path
            frame.pop(ESTIMATED, None)
            if model is None:
                frame[ESTIMATED] = path
    write_transforms(run.capture, document)


def _segments(name: str, config: RunConfig) -> "SegmentModel":
    # transformers takes seconds to import and only this branch needs it.
    from dpdy_core.ingest.segments import SegmentModel

    return SegmentModel(name, resolve_device(config.device))


def _scores(
    images: list[np.ndarray],
    threshold: float,
    frames: list[dict[str, Any]],
    document: dict[str, Any],
    config: RunConfig,
    reporter: Reporter,
) -> np.ndarray:
    cameras = _known_cameras(frames, document, config, (images[0].shape[1], images[0].shape[0]))
    scores, models = motion_scores([grey(i) for i in images], threshold, cameras, reporter.step)
    pairs = sum(models.values())
    if pairs == 0:
        reporter.fall_back("no two training frames share enough of their view: no motion masks")
    weak = models["homography"] + models["still"]
    if weak > pairs / 2 and models["still"] >= models["homography"]:
        reporter.warn(f"the camera hardly moves ({weak} of {pairs} frame pairs): all image motion counts as moving")
    elif weak > pairs / 2:
        reporter.warn(
            f"no parallax in {weak} of {pairs} frame pairs (the camera turns, or sees one plane): motion is measured "
            "against a homography"
        )
    return scores


def _known_cameras(
    frames: list[dict[str, Any]], document: dict[str, Any], config: RunConfig, size: tuple[int, int]
) -> list[Pinhole] | None:
    """The capture's own cameras at `size`, if it has all of them and they are to be used."""
    if config.cameras.source == "sfm" or not all("transform_matrix" in f for f in frames):
        return None
    return pinholes(load_cameras(document, frames).resized(*size))


def motion_mask(image: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(H, W) bool mask from a motion score (H, W), cut along the colour edges of `image` (H, W, 3) uint8."""
    likely = _guided(grey(image), np.minimum(score, 2 * SURE))
    mask = _cut(image, likely)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return without_specks(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))


def _guided(guide: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Guided filter (He et al., ECCV 2010, eq. 5 to 8): smooth `values` that keep the edges of `guide` (H, W) uint8."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (2 * GUIDE_RADIUS + 1, 2 * GUIDE_RADIUS + 1), borderType=cv2.BORDER_REFLECT)

    i = guide.astype(np.float32) / 255
    p = values.astype(np.float32)
    mean_i, mean_p = mean(i), mean(p)
    a = (mean(i * p) - mean_i * mean_p) / (mean(i * i) - mean_i**2 + GUIDE_EPSILON)
    return mean(a) * i + mean(mean_p - a * mean_i)


def _cut(image: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(H, W) bool: one round of GrabCut (Rother et al., SIGGRAPH 2004) that starts from the scores."""
    labels = np.select(
        [score > SURE, score > LIKELY, score > UNLIKELY], [cv2.GC_FGD, cv2.GC_PR_FGD, cv2.GC_PR_BGD], cv2.GC_BGD
    ).astype(np.uint8)
    moving = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    # Its colour models have five parts each and need some pixels of either side.
    if min(moving.sum(), (~moving).sum()) < 50 or not (labels == cv2.GC_FGD).any():
        return moving
    cv2.setRNGSeed(0)
    cv2.grabCut(image, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def write_mask(run: RunDir, folder: str, frame: dict[str, Any], mask: np.ndarray, size: tuple[int, int]) -> str:
    """Store `mask` at the `size` (width, height) of the images in `folder` of the capture; its path inside it."""
    inside = PurePosixPath(frame["file_path"])
    name = inside.relative_to("images") if inside.is_relative_to("images") else inside
    relative = PurePosixPath(folder) / name.with_suffix(".png")
    full = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    write_atomic(run.capture / relative, lambda path: _imwrite(path, np.where(full > 127, 255, 0).astype(np.uint8)))
    return str(relative)


def _imwrite(path: Any, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise OSError(f"cannot write {path}")
