"""How far a run's depth is from the true one, on what stands still and on what moves."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.geometry.similarity import align_poses
from dpdy_core.ingest.clip import frames_of, read_depth, read_mask, read_transforms

COLUMNS = ("static with depth", "AbsRel", "median", "within 1.25", "movers with depth", "AbsRel", "within 1.25")
MASK_COLUMNS = ("masks by flow, IoU", "refined")
THROUGH = 1.03  # a place is seen through where the true depth there is this much farther
APART = 5  # every so many frames are looked at from each other


def depth_errors(capture: Path, truth_file: Path, poses: np.ndarray, index: list[int]) -> list[str]:
    """Cells for COLUMNS: shares, mean and median of |depth - truth| / truth, and share within 1.25 of the truth.

    `poses` (N, 4, 4) are the true ones of the capture's training frames in time order and `index` their places in the
    truth. Depth is scaled by one number for the clip: what brings the cameras onto the true ones (`align_poses`).
    """
    document, truth = read_transforms(capture), json.loads(truth_file.read_text())
    frames = sorted(frames_of(document, "train"), key=lambda f: f["time"])
    if not any("depth_file_path" in f for f in frames):
        return ["0 %", *["-"] * (len(COLUMNS) - 1)]
    found = np.array([f["transform_matrix"] for f in frames])
    scale = align_poses(found, poses).scale
    ours, unit = [], float(document["depth_unit_scale_factor"])
    size = (int(truth["w"]), int(truth["h"]))
    for frame in frames:
        ours.append(scale * read_depth(capture / frame["depth_file_path"], unit, size))
    every = true_frames(truth)
    true = [_map(truth_file.parent, truth, every[i]) for i in index]
    if "motion_mask_path" in every[0]:
        moving = [read_mask(truth_file.parent / every[i]["motion_mask_path"], size) for i in index]
    else:
        moving = seen_through(true, poses, truth)
    known = np.stack(true) > 0
    return [*_scores(np.stack(ours), np.stack(true), known & ~np.stack(moving), True),
            *_scores(np.stack(ours), np.stack(true), known & np.stack(moving), False)]  # fmt: skip


def mask_overlaps(capture: Path, truth_file: Path, index: list[int]) -> list[str]:
    """Cells for MASK_COLUMNS: intersection over union of all motion masks with the true ones, "-" where there are none.

    `index` are the places of the capture's training frames, in time order, in the truth.
    """
    document, truth = read_transforms(capture), json.loads(truth_file.read_text())
    frames, every = sorted(frames_of(document, "train"), key=lambda f: f["time"]), true_frames(truth)
    size = (int(document["w"]), int(document["h"]))
    cells = []
    for key in ("estimated_mask_path", "motion_mask_path"):
        if not all(key in f for f in frames) or "motion_mask_path" not in every[0]:
            cells.append("-")
            continue
        found = np.stack([read_mask(capture / f[key], size) for f in frames])
        true = np.stack([read_mask(truth_file.parent / every[i]["motion_mask_path"], size) for i in index])
        cells.append(f"{(found & true).sum() / max((found | true).sum(), 1):.2f}")
    return cells


def true_frames(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The training frames in the order in which a video shows them, then the others."""
    names = truth.get("train_filenames") or []
    by_name = {f["file_path"]: f for f in truth["frames"]}
    return [by_name[name] for name in dict.fromkeys([*names, *by_name])]


def _map(folder: Path, truth: dict[str, Any], frame: dict[str, Any]) -> np.ndarray:
    unit = float(truth.get("depth_unit_scale_factor", 0.001))
    return read_depth(folder / frame["depth_file_path"], unit, (int(truth["w"]), int(truth["h"])))


def seen_through(depth: list[np.ndarray], poses: np.ndarray, truth: dict[str, Any]) -> list[np.ndarray]:
    """(H, W) bool each: where something was that another frame, of the same true depth, sees through.

    Where two frames or more agree, with a margin of two pixels against half-seen edges: then it has moved.
    """
    focal, centre = float(truth["fl_x"]), np.array([float(truth["cx"]), float(truth["cy"])])
    height, width = depth[0].shape
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    moved = []
    for i, here in enumerate(depth):
        inside = np.stack([(x - centre[0]) / focal * here, -(y - centre[1]) / focal * here, -here, np.ones_like(here)])
        count = np.zeros((height, width), np.int32)
        for j in range(i % APART, len(depth), APART):
            point = (np.linalg.inv(poses[j]) @ poses[i]).astype(np.float32).reshape(4, 4) @ inside.reshape(4, -1)
            z = np.maximum(-point[2], 1e-6).reshape(height, width)
            at_x = (focal * point[0].reshape(height, width) / z + centre[0] - 0.5).astype(np.float32)
            at_y = (-focal * point[1].reshape(height, width) / z + centre[1] - 0.5).astype(np.float32)
            nearest = cv2.erode(np.where(depth[j] > 0, depth[j], 1e6).astype(np.float32), np.ones((5, 5), np.uint8))
            there = cv2.remap(nearest, at_x, at_y, cv2.INTER_NEAREST, borderValue=0)
            count += (there > THROUGH * z) & (there < 1e6) & (here > 0)
        close = cv2.morphologyEx((count >= 2).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        moved.append(cv2.dilate(close, np.ones((5, 5), np.uint8)) > 0)
    return moved


def _scores(ours: np.ndarray, true: np.ndarray, chosen: np.ndarray, median: bool) -> list[str]:
    both = chosen & (ours > 0)
    share = f"{both.sum() / max(chosen.sum(), 1):.0%}"
    if not both.any():
        return [share, *["-"] * (3 if median else 2)]
    error = np.abs(ours[both] - true[both]) / true[both]
    ratio = np.maximum(ours[both] / true[both], true[both] / ours[both])
    middle = [f"{np.median(error):.3f}"] if median else []
    return [share, f"{error.mean():.3f}", *middle, f"{(ratio < 1.25).mean():.1%}"]
