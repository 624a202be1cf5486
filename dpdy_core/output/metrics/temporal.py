"""What happens between frames: flicker, and whether points are found again."""

import torch

from dpdy_core.output.metrics.arrays import Array, as_images, as_mask


def flicker(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Mean absolute difference of two successive frames of a fixed camera, in levels of 255."""
    x, y = as_images(a, b)
    difference = (x - y).abs()
    if mask is not None:
        difference = difference[as_mask(mask, x)]
    return float(difference.mean()) * 255 if difference.numel() else None


def pck_t(
    predicted: Array, keypoints: Array, visible: Array, size: tuple[int, int], ratio: float = 0.05
) -> float | None:
    """PCK-T (DyCheck, section 4): the share of keypoints that are carried to another time correctly.

    `keypoints` (F, J, 2) are the true pixels of J points in F frames, `visible` (F, J) whether they are seen, and
    `predicted[i, j]` of (F, F, J, 2) where the points of frame i are said to be in frame j. Over all ordered pairs of
    different frames, points seen in both count as correct when they are less than `ratio` of the longer side of `size`
    (width, height) off; the mean inside a pair, then over pairs. None where no pair shares a point.
    """
    true, seen = torch.as_tensor(keypoints).double(), torch.as_tensor(visible) != 0
    found = torch.as_tensor(predicted).double()
    frames, points = seen.shape
    if true.shape != (frames, points, 2) or found.shape != (frames, frames, points, 2):
        raise ValueError(f"{tuple(found.shape)}, {tuple(true.shape)} and {tuple(seen.shape)} do not belong together")
    correct = (found - true[None]).norm(dim=-1) < ratio * max(size)
    both = seen[:, None] & seen[None]
    both &= ~torch.eye(frames, dtype=torch.bool, device=both.device)[..., None]
    shared = both.sum(-1)
    pairs = shared > 0
    if not bool(pairs.any()):
        return None
    return float(((correct & both).sum(-1)[pairs] / shared[pairs].double()).mean())
