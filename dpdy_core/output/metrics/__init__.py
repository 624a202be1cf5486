"""Metrics as plain functions.

Images `a` (rendered) and `b` (true) are (H, W, 3) arrays or tensors of floats in [0, 1], masks (H, W), depths (H, W)
planar z. Protocols quantise images to 8 bit first (`quantise`, `truncate`); the functions take them as they are, in
float64. Higher is better for `psnr`, `ssim`, `ms_ssim`, `delta1` and `pck_t`, lower for `lpips`, `flip`, `abs_rel`,
`rmse` and `flicker`; `sharpness` is best at one. Nothing to measure gives None. The DyCheck forms are `mpsnr`, `mssim`
and `mlpips`. Shapes that do not fit raise ValueError.
"""

from dpdy_core.output.metrics.depth import abs_rel, delta1, median_scale, rmse
from dpdy_core.output.metrics.image import (
    LEAST_MS_SSIM_SIDE,
    box_ssim,
    ms_ssim,
    psnr,
    quantise,
    sharpness,
    ssim,
    truncate,
)
from dpdy_core.output.metrics.masked import mpsnr, mssim
from dpdy_core.output.metrics.perceptual import flip, flip_map, flip_missing, lpips, lpips_missing, mlpips
from dpdy_core.output.metrics.temporal import flicker, pck_t

__all__ = [
    "LEAST_MS_SSIM_SIDE",
    "abs_rel",
    "box_ssim",
    "delta1",
    "flicker",
    "flip",
    "flip_map",
    "flip_missing",
    "lpips",
    "lpips_missing",
    "median_scale",
    "mlpips",
    "mpsnr",
    "ms_ssim",
    "mssim",
    "pck_t",
    "psnr",
    "quantise",
    "rmse",
    "sharpness",
    "ssim",
    "truncate",
]
