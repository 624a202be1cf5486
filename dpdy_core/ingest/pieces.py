"""Masks: their size and their connected pieces."""

import cv2
import numpy as np

SMALLEST_SHARE = 5e-4  # of the image: smaller pieces are noise
MOVES = 0.3  # share of a thing that must be seen to move for the whole to count


def resized_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, h, w) bool `masks` at `size` (width, height), nearest neighbour."""
    return np.stack([cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in masks])


def without_specks(mask: np.ndarray) -> np.ndarray:
    """`mask` (H, W) bool without its smallest connected pieces."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= SMALLEST_SHARE * mask.size
    large[0] = False
    kept: np.ndarray = large[labels] if count > 1 else np.zeros(mask.shape, bool)
    return kept


def connected_pieces(classes: np.ndarray, movable: list[int]) -> np.ndarray:
    """(H, W) int32: the connected pieces of each `movable` class of `classes` (H, W), numbered from 1; 0 elsewhere."""
    pieces = np.zeros(classes.shape, np.int32)
    for number in movable:
        count, labels, stats, _ = cv2.connectedComponentsWithStats((classes == number).astype(np.uint8), connectivity=8)
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] >= SMALLEST_SHARE * classes.size:
                pieces[labels == label] = pieces.max() + 1
    return pieces


def whole_movers(mask: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """(H, W) bool: of every piece all if enough of it is in `mask` (H, W), else nothing; outside of pieces the mask."""
    inside = np.bincount(pieces.ravel(), weights=mask.ravel().astype(float))
    share = inside / np.maximum(np.bincount(pieces.ravel()), 1)
    result: np.ndarray = np.where(pieces > 0, (share >= MOVES)[pieces], mask)
    return result
