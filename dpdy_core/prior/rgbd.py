"""Colour and depth as the four channels that an LDM3D-4c model sees, the same in pretraining, DreamBooth and SDS."""

import torch
from torch import Tensor

LOW, HIGH = 0.02, 0.98  # robust percentiles of inverse depth that map to -1 and 1
FLAT = 0.01  # inverse depth that varies by less than this share of itself counts as constant
MAX_SORTED = 16384  # pixels whose order statistics stand for the image


def pack(rgb: Tensor, depth: Tensor) -> Tensor:
    """(B, 4, H, W) in [-1, 1] from `rgb` (B, 3, H, W) in [0, 1] and planar `depth` (B, 1, H, W), 0 = none."""
    return torch.cat([rgb * 2 - 1, relative_inverse_depth(depth)], dim=1)


def unpack(rgbd: Tensor) -> tuple[Tensor, Tensor]:
    """RGB (B, 3, H, W) and relative inverse depth (B, 1, H, W), near = 1, both in [0, 1], from (B, 4, H, W)."""
    unit = (rgbd / 2 + 0.5).clamp(0, 1)
    return unit[:, :3], unit[:, 3:]


def relative_inverse_depth(depth: Tensor) -> Tensor:
    """(B, 1, H, W) in [-1, 1], near = 1, affine in 1 / `depth` for each image.

    The 2nd and 98th percentile of inverse depth map to -1 and 1; beyond them it is clamped. The percentiles are
    detached, so that no gradient asks a scene to change its scale. Constant depth, and pixels without depth
    (0, NaN), map to 0; depth at infinity is the farthest. The map is continuous in between, so an almost flat
    early render isn't stretched into noise.
    """
    inverse, known, centre, half = _normalised_by(depth)
    return torch.where(known, ((inverse - centre) / half).clamp(-1, 1), torch.zeros_like(depth))


def absolute_inverse_depth(relative: Tensor, depth: Tensor) -> Tensor:
    """1 / depth (B, 1, H, W) that `relative` in [-1, 1] stands for, in the scale and shift of `depth` (B, 1, H, W).

    The inverse of `relative_inverse_depth`, but for what that clamps. Never below a thousandth of the middle.
    """
    _, _, centre, half = _normalised_by(depth)
    return torch.maximum(relative * half + centre, 1e-3 * centre)


def _normalised_by(depth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inverse depth, where it is known, and the centre and half width (B, 1, 1, 1) that it is normalised by."""
    known = depth > 0
    inverse = 1 / torch.where(known, depth, torch.ones_like(depth)).clamp_min(1e-6)
    low, high = percentiles(inverse.detach(), known, (LOW, HIGH))
    centre = (low + high) / 2
    half = torch.maximum((high - low) / 2, FLAT * centre).clamp_min(1e-12)
    return inverse, known, centre, half


def percentiles(values: Tensor, known: Tensor, shares: tuple[float, ...]) -> list[Tensor]:
    """Per image, the values (B, 1, 1, 1) below which `shares` of the `known` pixels of `values` (B, 1, H, W) lie.

    Sorts an even subsample: torch.quantile refuses large inputs. An image without known pixels gives 1.
    """
    count = values.shape[1:].numel()
    step = max(1, count // MAX_SORTED) | 1  # odd, so that it runs over all columns of an even-sized image
    flat, mask = values.flatten(1)[:, ::step], known.flatten(1)[:, ::step]
    ordered = torch.where(mask, flat, torch.full_like(flat, torch.inf)).sort(dim=1).values
    total = mask.sum(dim=1, keepdim=True)
    found = [ordered.gather(1, ((total - 1).clamp_min(0) * share).round().long()) for share in shares]
    return [torch.where(total > 0, value, torch.ones_like(value))[:, :, None, None] for value in found]
