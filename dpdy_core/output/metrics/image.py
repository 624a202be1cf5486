"""How alike two pictures are: signal-to-noise ratio, structural similarity, sharpness."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dpdy_core.output.metrics.arrays import Array, as_images, as_mask

WINDOW, SIGMA = 11, 1.5
BOX = 7  # pixels: scikit-image's default window
C1, C2 = 0.01**2, 0.03**2  # (k1 L)^2 and (k2 L)^2 of Wang et al. 2004 at data range L = 1
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2
LEAST_MS_SSIM_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)


def quantise(image: Tensor) -> Tensor:
    """`image` clamped to [0, 1] and rounded to 8 bit, as float64."""
    return (image.double().clamp(0, 1) * 255).round() / 255


def truncate(image: Tensor) -> Tensor:
    """`image` cut to 8 bit as NeRF's `to8b` and DyCheck's `to_uint8` do (in float32, always down), as float64."""
    return (image.float() * 255).clamp(0, 255).floor().double() / 255


def psnr(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB over all channels of the (masked) pixels.

    Infinite for equal images, None for an empty mask.
    """
    x, y = as_images(a, b)
    error = (x - y).square()
    if mask is not None:
        error = error[as_mask(mask, x)]
    if error.numel() == 0:
        return None
    return float(-10 * torch.log10(error.mean()))


def ssim(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Structural similarity (Wang et al. 2004): 11-tap Gaussian window of sigma 1.5, mean over channels and pixels.

    Only windows that lie inside the image count, as in scikit-image; with a mask, those whose centre is in the mask.
    None where no window counts.
    """
    x, y = as_images(a, b)
    chosen = None if mask is None else as_mask(mask, x)
    if min(x.shape[:2]) < WINDOW:
        return None
    structure, luminance = _terms(x, y, gaussian(x))
    return _mean_of_windows(structure * luminance, chosen)


def box_ssim(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Structural similarity with scikit-image's defaults: 7x7 box window, sample covariance; masked like `ssim`.

    Gao et al. 2021 report it (DynamicNeRF utils/evaluation.py).
    """
    x, y = as_images(a, b)
    chosen = None if mask is None else as_mask(mask, x)
    if min(x.shape[:2]) < BOX:
        return None
    unbiased = BOX**2 / (BOX**2 - 1)
    structure, luminance = _terms(x, y, x.new_full((BOX,), 1 / BOX), unbiased)
    return _mean_of_windows(structure * luminance, chosen)


def ms_ssim(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003) of five scales; None for a side under 176 pixels.

    Contrast-structure terms of the finer scales times the full term of the coarsest, each to its weight; negative terms
    count as zero. As in torchmetrics the finer scales count windows inside the image, and the coarsest all windows, the
    image mirrored at its border. With a mask, `a` is taken to be `b` everywhere else: errors inside the mask, seen in
    the whole image (the windows of the coarse scales are far larger than most masks). Comparable only over equal masks.
    """
    x, y = as_images(a, b)
    chosen = None if mask is None else as_mask(mask, x)
    if min(x.shape[:2]) < LEAST_MS_SSIM_SIDE:
        return None
    if chosen is not None:
        if not bool(chosen.any()):
            return None
        x = torch.where(chosen[..., None], x, y)
    product, window = 1.0, gaussian(x)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y = _halved(x), _halved(y)
        if scale == len(SCALE_WEIGHTS) - 1:
            structure, luminance = _terms(_mirrored(x), _mirrored(y), window)
            term = structure * luminance
        else:
            term = _terms(x, y, window)[0]
        product *= float(term.mean().clamp(min=0)) ** weight
    return product


def sharpness(a: Array, b: Array, mask: Array | None = None) -> float | None:
    """Gradient energy of `a` over that of the true image `b`: below one is blurred, above one is noisy.

    The energy is the mean square of the differences between neighbouring pixels that are both in the mask.
    """
    x, y = as_images(a, b)
    chosen = None if mask is None else as_mask(mask, x)
    energy, true = _gradient_energy(x, chosen), _gradient_energy(y, chosen)
    return energy / true if energy is not None and true else None


def gaussian(like: Tensor) -> Tensor:
    """(WINDOW,) the window of `ssim`, of the type and on the device of `like`."""
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return window / window.sum()


def slide(maps: Tensor, weights: Tensor, dim: int) -> Tensor:
    """The weighted sum of each window of `maps` (..., H, W) along `dim` (-2 or -1), without borders.

    As a sum of shifted maps, which in float64 is several times quicker than a convolution.
    """
    first, *rest = weights.tolist()
    length = maps.shape[dim] - len(rest)
    total = maps.narrow(dim, 0, length) * first
    for shift, weight in enumerate(rest, start=1):
        total.add_(maps.narrow(dim, shift, length), alpha=weight)
    return total


def _terms(a: Tensor, b: Tensor, window: Tensor, unbiased: float = 1.0) -> tuple[Tensor, Tensor]:
    """Contrast-structure and luminance terms, (3, H - n + 1, W - n + 1) each, of every window inside the image."""
    x, y = a.permute(2, 0, 1), b.permute(2, 0, 1)
    maps = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = slide(slide(maps, window, -2), window, -1)
    variance_x = unbiased * (xx - mean_x.square()).clamp(min=0)
    variance_y = unbiased * (yy - mean_y.square()).clamp(min=0)
    covariance = unbiased * (xy - mean_x * mean_y)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return structure, luminance


def _mean_of_windows(similarity: Tensor, mask: Tensor | None) -> float | None:
    """Mean of (3, H', W') over all windows, or those whose centre is in the mask (H, W)."""
    values = similarity.mean(dim=0)
    if mask is not None:
        margin = (mask.shape[0] - values.shape[0]) // 2
        values = values[mask[margin:-margin, margin:-margin]]
    return float(values.mean()) if values.numel() else None


def _mirrored(image: Tensor) -> Tensor:
    margin = WINDOW // 2
    return F.pad(image.permute(2, 0, 1)[None], (margin,) * 4, mode="reflect")[0].permute(1, 2, 0)


def _halved(image: Tensor) -> Tensor:
    return F.avg_pool2d(image.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)


def _gradient_energy(image: Tensor, mask: Tensor | None) -> float | None:
    across, down = (image[:, 1:] - image[:, :-1]).square(), (image[1:] - image[:-1]).square()
    if mask is not None:
        across, down = across[mask[:, 1:] & mask[:, :-1]], down[mask[1:] & mask[:-1]]
    squares = torch.cat([across.flatten(), down.flatten()])
    return float(squares.mean()) if len(squares) else None
