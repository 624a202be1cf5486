"""Metrics as plain functions. Images `a`, `b` are (H, W, 3) in [0, 1], masks (H, W) bool, depths (H, W) planar z.

Images are quantised to 8 bit first (`quantise`), as the published protocols do. Higher is better for `psnr`, `ssim` and
`ms_ssim`, lower for `abs_rel` and `flicker`; `sharpness` is best at one. Nothing to measure gives None.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # (k1 L)^2 and (k2 L)^2 of Wang et al. 2004 at data range L = 1
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
LEAST_MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)


def quantise(image: Tensor) -> Tensor:
    """`image` clamped to [0, 1] and rounded to 8 bit, as float64."""
    return (image.double().clamp(0, 1) * 255).round() / 255


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB over all channels of the (masked) pixels.

    Infinite for equal images, None for an empty mask.
    """
    error = (a - b).square()
    if mask is not None:
        error = error[mask]
    if error.numel() == 0:
        return None
    return float(-10 * torch.log10(error.mean()))


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float | None:
    """Structural similarity (Wang et al. 2004): 11-tap Gaussian window of sigma 1.5, mean over channels and pixels.

    Only windows that lie inside the image count, as in scikit-image and torchmetrics; with a mask, those whose centre
    is in the mask. None where no window counts.
    """
    if min(a.shape[:2]) < WINDOW:
        return None
    structure, luminance = _similarity_maps(a, b)
    similarity = (structure * luminance).mean(dim=0)
    if mask is not None:
        margin = WINDOW // 2
        similarity = similarity[mask[margin:-margin, margin:-margin]]
    return float(similarity.mean()) if similarity.numel() else None


def ms_ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003) of five scales; None for a side under 176 pixels.

    Contrast-structure terms of the finer scales times the full term of the coarsest, each to its weight; negative terms
    count as zero. With a mask, `a` is taken to be `b` everywhere else: errors inside the mask, seen in the whole image
    (the windows of the coarse scales are far larger than most masks). Comparable only over equal masks.
    """
    if min(a.shape[:2]) < LEAST_MS_SSIM_SIDE:
        return None
    if mask is not None:
        if not bool(mask.any()):
            return None
        a = torch.where(mask[..., None], a, b)
    product = 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            a, b = _halved(a), _halved(b)
        structure, luminance = _similarity_maps(a, b)
        last = scale == len(SCALE_WEIGHTS) - 1
        term = (structure * luminance if last else structure).mean()
        product *= float(term.clamp(min=0)) ** weight
    return product


def sharpness(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float | None:
    """Gradient energy of `a` over that of the true image `b`: below one is blurred, above one is noisy.

    The energy is the mean square of the differences between neighbouring pixels that are both in the mask.
    """
    energy, true = _gradient_energy(a, mask), _gradient_energy(b, mask)
    return energy / true if energy is not None and true else None


def flicker(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float | None:
    """Mean absolute difference of two successive frames of a fixed camera, in levels of 255."""
    difference = (a - b).abs()
    if mask is not None:
        difference = difference[mask]
    return float(difference.mean()) * 255 if difference.numel() else None


def median_scale(depth: Tensor, truth: Tensor, mask: Tensor | None = None) -> float | None:
    """The factor that brings `depth` to the true median (Zhou et al. 2017), over pixels with a true depth > 0."""
    known = truth > 0 if mask is None else (truth > 0) & mask
    if not bool(known.any()):
        return None
    return float(truth[known].median() / depth[known].median().clamp(min=1e-9))


def abs_rel(depth: Tensor, truth: Tensor, mask: Tensor | None = None) -> float | None:
    """Mean of |depth - truth| / truth (Eigen et al. 2014) over the (masked) pixels with a true depth > 0."""
    known = truth > 0 if mask is None else (truth > 0) & mask
    if not bool(known.any()):
        return None
    return float(((depth[known] - truth[known]).abs() / truth[known]).mean())


def _gradient_energy(image: Tensor, mask: Tensor | None) -> float | None:
    across, down = (image[:, 1:] - image[:, :-1]).square(), (image[1:] - image[:-1]).square()
    if mask is not None:
        across, down = across[mask[:, 1:] & mask[:, :-1]], down[mask[1:] & mask[:-1]]
    squares = torch.cat([across.flatten(), down.flatten()])
    return float(squares.mean()) if len(squares) else None


def _similarity_maps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast-structure and luminance terms, (3, H - 10, W - 10) each, of every window inside the image."""
    x, y = a.permute(2, 0, 1), b.permute(2, 0, 1)
    mean_x, mean_y, xx, yy, xy = _blurred(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x = (xx - mean_x.square()).clamp(min=0)
    variance_y = (yy - mean_y.square()).clamp(min=0)
    covariance = xy - mean_x * mean_y
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return structure, luminance


def _blurred(maps: Tensor) -> Tensor:
    """`maps` (K, 3, H, W) under the Gaussian window, without borders: (K, 3, H - 10, W - 10)."""
    offsets = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    window = window / window.sum()
    flat = maps.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, window[None, None, :, None]), window[None, None, None, :])
    return flat[:, 0].unflatten(0, maps.shape[:2])


def _halved(image: Tensor) -> Tensor:
    return F.avg_pool2d(image.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
