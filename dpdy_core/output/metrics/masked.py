"""The masked metrics of DyCheck (Gao et al. 2022), as its code computes them: dycheck/core/metrics/image.py.

What looks odd is kept on purpose, so that numbers can be set beside published ones.
"""

import torch
from torch import Tensor

from dpdy_core.output.metrics.arrays import Array, as_images, as_mask
from dpdy_core.output.metrics.image import C1, C2, WINDOW, gaussian, psnr, slide


def mpsnr(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """PSNR in dB of the squared error's mean over masked pixels and channels; None for an empty mask."""
    return psnr(a, b, mask)


def mssim(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """SSIM by partial convolution (Liu et al. 2018, section 3.1), averaged over the whole map.

    Each 1-D window, first along x, then along y, is renormalised by how many of its pixels the mask holds (not by their
    Gaussian weight); variances are clamped to be non-negative, and the covariance to what they allow. Windows without a
    masked pixel evaluate to exactly one and count: a small mask inflates the mean. None for an empty mask, or an image
    smaller than the window.
    """
    x, y = as_images(a, b)
    held = torch.ones_like(x[..., 0]) if mask is None else as_mask(mask, x).double()
    if min(x.shape[:2]) < WINDOW or not bool(held.any()):
        return None
    x, y = x.permute(2, 0, 1), y.permute(2, 0, 1)
    mean_x, mean_y, xx, yy, xy = _partial_blur(torch.stack([x, y, x * x, y * y, x * y]), held)
    variance_x = (xx - mean_x.square()).clamp(min=0)
    variance_y = (yy - mean_y.square()).clamp(min=0)
    covariance = xy - mean_x * mean_y
    covariance = covariance.sign() * torch.minimum((variance_x * variance_y).sqrt(), covariance.abs())
    upper = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    lower = (mean_x.square() + mean_y.square() + C1) * (variance_x + variance_y + C2)
    return float((upper / lower).mean())


def _partial_blur(maps: Tensor, held: Tensor) -> Tensor:
    """`maps` (K, 3, H, W) under the Gaussian window, without borders, from the pixels that `held` (H, W) holds."""
    window = gaussian(maps)
    for dim in (-1, -2):
        count = slide(held, torch.ones_like(window), dim)
        total = slide(maps * held, window, dim)
        maps = torch.where(count > 0, total * WINDOW / count.clamp(min=1), torch.zeros_like(total))
        held = (count > 0).to(maps.dtype)
    return maps
