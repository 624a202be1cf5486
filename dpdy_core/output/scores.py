"""What a picture of a held-out view is worth: every measure, of the whole image and of each region of it."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip
from dpdy_core.output.metrics import (
    abs_rel,
    delta1,
    flicker,
    flip_map,
    flip_missing,
    median_scale,
    ms_ssim,
    quantise,
    rmse,
    sharpness,
)
from dpdy_core.output.protocols import PLAIN, Protocol

METRICS = ("psnr", "ssim", "ms_ssim", "lpips")
MEASURES = (*METRICS, "flip", "abs_rel", "rmse", "delta1", "flicker", "sharpness")
REGIONS = ("covisible", "moving", "unseen", "static")

Scores = dict[str, Any]


class HeldOut:
    """The held-out frames as judges of pictures of them. `depth` (T, H, W) is true, known up to a factor, 0 = none."""

    def __init__(self, clip: Clip, depth: Tensor | None, protocol: Protocol = PLAIN) -> None:
        self.clip, self.depth, self.protocol = clip, depth, protocol
        self.before = views_before(clip.cameras)

    def score(self, pictures: list[Tensor], depth: Tensor | None = None) -> Scores:
        """Scores of the last of `pictures`, which show the first views in order, each (H, W, 3) in [0, 1].

        `depth` (H, W) is the rendered depth of that view; one factor a view brings it to the true median.
        """
        view = len(pictures) - 1
        protocol = self.protocol
        image, truth = protocol.quantise(pictures[view]), quantise(self.clip.images[view].float() / 255)
        true_depth = None if self.depth is None or depth is None else self.depth[view]
        if depth is not None and true_depth is not None:
            depth = depth * (median_scale(depth, true_depth, self.clip.valid[view]) or 1.0)
        earlier = self.before[view]
        before = None if earlier is None else protocol.quantise(pictures[earlier])
        perceived = None if flip_missing() else flip_map(image, truth)

        def of_depth(error: Callable[..., float | None], mask: Tensor | None) -> float | None:
            return None if depth is None or true_depth is None else error(depth, true_depth, mask)

        def measures(mask: Tensor | None, mask_before: Tensor | None) -> Scores:
            still = mask if mask is None or mask_before is None else mask & mask_before
            return {
                "psnr": _finite(protocol.psnr(image, truth, mask)),
                "ssim": protocol.ssim(image, truth, mask),
                "ms_ssim": ms_ssim(image, truth, mask),
                "lpips": protocol.lpips(image, truth, mask),
                "flip": None if perceived is None else _mean(perceived, mask),
                "abs_rel": of_depth(abs_rel, mask),
                "rmse": of_depth(rmse, mask),
                "delta1": of_depth(delta1, mask),
                "flicker": None if before is None else flicker(image, before, still),
                "sharpness": sharpness(image, truth, mask),
            }

        nowhere = dict.fromkeys(MEASURES)
        scores = measures(self._mask(None, view), None if earlier is None else self._mask(None, earlier))
        for region in REGIONS:
            if self.has(region):
                mask = self._mask(region, view)
                scores[region] = measures(mask, None if earlier is None else self._mask(region, earlier))
            else:
                scores[region] = dict(nowhere)
        return scores

    def has(self, region: str) -> bool:
        """Whether the capture tells which pixels of the held-out frames belong to `region`."""
        return (self.clip.covisible if region in ("covisible", "unseen") else self.clip.motion) is not None

    def own_flicker(self) -> float | None:
        """Mean flicker of the true frames' static pixels (shadows, noise), in levels of 255; None where unknown."""
        values = []
        for view, earlier in enumerate(self.before):
            now = self._mask("static", view)
            before = None if earlier is None else self._mask("static", earlier)
            if earlier is not None and now is not None and before is not None and self.has("static"):
                a, b = (quantise(self.clip.images[i].float() / 255) for i in (view, earlier))
                values.append(flicker(a, b, now & before))
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def _mask(self, region: str | None, view: int) -> Tensor | None:
        """(H, W) bool; None for all pixels."""
        clip, valid = self.clip, self.clip.valid[view]
        match region:
            case "covisible" if clip.covisible is not None:
                return clip.covisible[view] & valid
            case "unseen" if clip.covisible is not None:
                return ~clip.covisible[view] & valid
            case "moving" if clip.motion is not None:
                return clip.motion[view] & valid
            case "static" if clip.motion is not None:
                return ~clip.motion[view] & valid
        return None if bool(valid.all()) else valid


def views_before(cameras: Cameras) -> list[int | None]:
    """For each view the last one before it with the very same camera, None where that is the first."""
    poses = torch.cat([cameras.camera_to_world.flatten(1), cameras.focal, cameras.principal], dim=1)
    last: dict[int, int] = {}
    before: list[int | None] = []
    for view, group in enumerate(torch.unique(poses, dim=0, return_inverse=True)[1].tolist()):
        before.append(last.get(group))
        last[group] = view
    return before


def _mean(values: Tensor, mask: Tensor | None) -> float | None:
    chosen = values if mask is None else values[mask]
    return float(chosen.mean()) if chosen.numel() else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def mean_scores(views: list[Scores]) -> Scores:
    """The mean of each measure over the views that have it; null where none has."""

    def mean(read: Callable[[Scores], float | None]) -> float | None:
        values = [v for v in map(read, views) if v is not None]
        return sum(values) / len(values) if values else None

    means: Scores = {measure: mean(lambda view, m=measure: view[m]) for measure in MEASURES}  # type: ignore[misc]
    for region in REGIONS:
        means[region] = {measure: mean(lambda view, r=region, m=measure: view[r][m]) for measure in MEASURES}  # type: ignore[misc]
    return means
