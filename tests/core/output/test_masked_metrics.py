"""DyCheck's masked metrics against a reference of plain loops in float64, window by window."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from dpdy_core.output.metrics import (
    box_ssim,
    flicker,
    flip,
    lpips,
    mlpips,
    mpsnr,
    ms_ssim,
    mssim,
    psnr,
    sharpness,
    ssim,
)

OFFSETS = range(-5, 6)
GAUSSIAN = [math.exp(-(k**2) / (2 * 1.5**2)) for k in OFFSETS]


def slow_mpsnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    total = count = 0.0
    for y, x in np.ndindex(mask.shape):
        if mask[y, x]:
            total += sum((a[y, x, c] - b[y, x, c]) ** 2 for c in range(3))
            count += 3
    return -10 * math.log10(total / count)


def partial(values: list[float], held: list[bool]) -> tuple[float, bool]:
    """One 1-D window: the Gaussian sum of the held values, times the window's length over how many are held."""
    weight = sum(GAUSSIAN)
    total = sum(g / weight * v for g, v, h in zip(GAUSSIAN, values, held, strict=True) if h)
    return (total * len(OFFSETS) / sum(held), True) if any(held) else (0.0, False)


def slow_blur(plane: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows first, then columns of what the rows gave."""
    height, width = plane.shape
    rows = [
        [partial(list(plane[y, x : x + 11]), list(mask[y, x : x + 11])) for x in range(width - 10)]
        for y in range(height)
    ]
    out = np.empty((height - 10, width - 10))
    for y, x in np.ndindex(out.shape):
        column = [rows[y + k][x] for k in range(11)]
        out[y, x] = partial([value for value, _ in column], [held for _, held in column])[0]
    return out


def slow_mssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    values = []
    for c in range(3):
        p, q = a[..., c], b[..., c]
        mp, mq, pp, qq, pq = (slow_blur(plane, mask) for plane in (p, q, p * p, q * q, p * q))
        for i in np.ndindex(mp.shape):
            vp, vq = max(0.0, pp[i] - mp[i] ** 2), max(0.0, qq[i] - mq[i] ** 2)
            covariance = pq[i] - mp[i] * mq[i]
            covariance = math.copysign(min(math.sqrt(vp * vq), abs(covariance)), covariance)
            upper = (2 * mp[i] * mq[i] + 0.01**2) * (2 * covariance + 0.03**2)
            values.append(upper / ((mp[i] ** 2 + mq[i] ** 2 + 0.01**2) * (vp + vq + 0.03**2)))
    return sum(values) / len(values)


def images(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.random((height, width, 3))
    return a, np.clip(a + 0.3 * rng.standard_normal(a.shape), 0, 1)


@pytest.mark.parametrize(("share", "seed"), [(1.0, 0), (0.7, 1), (0.2, 2), (0.02, 3), (0.002, 4)])
@pytest.mark.parametrize("size", [(16, 23), (31, 14)])
def test_masked_metrics_equal_the_slow_reference(size: tuple[int, int], share: float, seed: int) -> None:
    a, b = images(*size, seed)
    mask = np.random.default_rng(seed + 100).random(size) < share
    mask[3, 4] = True
    assert mpsnr(a, b, mask) == pytest.approx(slow_mpsnr(a, b, mask), abs=1e-9)
    assert mssim(a, b, mask) == pytest.approx(slow_mssim(a, b, mask), abs=1e-9)
    single = (torch.from_numpy(image).float() for image in (a, b))
    assert mssim(*single, torch.from_numpy(mask)) == pytest.approx(slow_mssim(a, b, mask), abs=1e-4)


def test_a_block_of_covisible_pixels_equals_the_slow_reference() -> None:
    a, b = images(40, 30, 7)
    mask = np.zeros((40, 30), bool)
    mask[2:12, 3:9] = True
    assert mpsnr(a, b, mask) == pytest.approx(slow_mpsnr(a, b, mask), abs=1e-9)
    assert mssim(a, b, mask) == pytest.approx(slow_mssim(a, b, mask), abs=1e-9)


def test_windows_without_a_masked_pixel_count_as_perfect() -> None:
    """The trap that inflates the score of a small mask, kept on purpose."""
    a, b = images(60, 60, 5)
    mask = np.zeros((60, 60), bool)
    mask[:4, :4] = True
    touched = 4 * 4 / 50**2  # windows that reach the corner
    assert mssim(a, 1 - a, mask) >= 1 - 2 * touched
    assert mssim(a, b, mask) > mssim(a, b) + 0.2


def test_without_a_mask_mssim_is_ssim() -> None:
    a, b = images(40, 50, 6)
    assert mssim(a, b) == pytest.approx(ssim(a, b), abs=1e-9)
    assert mssim(a, b, np.ones((40, 50))) == pytest.approx(ssim(a, b), abs=1e-9)


@pytest.mark.parametrize(
    "metric", [psnr, ssim, box_ssim, ms_ssim, mpsnr, mssim, lpips, mlpips, flip, flicker, sharpness]
)
def test_a_mask_of_another_size_is_refused_whatever_the_size_of_the_image(metric: Callable[..., float | None]) -> None:
    a, b = images(6, 5, 9)
    with pytest.raises(ValueError, match=r"the mask is \(5, 6\)"):
        metric(a, b, np.ones((5, 6)))


def test_a_mask_of_floats_holds_where_it_is_not_zero() -> None:
    a, b = images(20, 17, 10)
    mask = np.random.default_rng(11).random((20, 17)) * (np.random.default_rng(12).random((20, 17)) < 0.5)
    for metric in (psnr, ssim, mpsnr, mssim):
        assert metric(a, b, mask) == metric(a, b, mask > 0) == metric(a, b, (mask > 0)[..., None].astype(np.uint8))


def test_nothing_to_measure_is_none() -> None:
    a, b = images(40, 50, 8)
    assert mpsnr(a, b, np.zeros((40, 50))) is None
    assert mssim(a, b, np.zeros((40, 50))) is None
    assert mssim(a[:10], b[:10]) is None
