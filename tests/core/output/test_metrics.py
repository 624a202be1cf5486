"""Metrics against scikit-image, torchmetrics and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from dpdy_core.output.metrics import abs_rel, flicker, median_scale, ms_ssim, psnr, quantise, sharpness, ssim


def pair(height: int, width: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture with edges, and the same with noise, 8-bit quantised."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    base = np.stack([np.sin(9 * x) * 0.4 + 0.5, np.cos(7 * y) * 0.4 + 0.5, (x + y > 0.8) * 0.9], axis=-1)
    other = base + noise * rng.standard_normal(base.shape)
    return quantise(torch.from_numpy(base)), quantise(torch.from_numpy(other))


def batch(image: torch.Tensor) -> torch.Tensor:
    return image.permute(2, 0, 1)[None]


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("size", [(48, 64), (97, 71)])
def test_ssim_equals_scikit_image_and_torchmetrics(size: tuple[int, int], noise: float) -> None:
    a, b = pair(*size, noise)
    theirs = structural_similarity(
        a.numpy(),
        b.numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    # torchmetrics averages over its padded border too; inside they agree.
    _, full = structural_similarity_index_measure(batch(b), batch(a), data_range=1.0, return_full_image=True)
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-6)
    assert ssim(a, b) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=1e-5)


def test_masked_ssim_is_the_mean_of_scikit_image_map_under_the_mask() -> None:
    a, b = pair(60, 80, 0.1)
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[10:40, 20:70] = True
    _, full = structural_similarity(
        a.numpy(),
        b.numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(a, b, mask) == pytest.approx(full[mask.numpy()].mean(), abs=1e-6)


def slow_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, equation 7, with scipy's Gaussian and a crop of the windows that cross the border."""

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (1.5, 1.5, 0), truncate=3.5)[5:-5, 5:-5]

    product = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        covariance = blur(a * b) - blur(a) * blur(b)
        variances = blur(a * a) - blur(a) ** 2 + blur(b * b) - blur(b) ** 2
        product *= ((2 * covariance + 0.0009) / (variances + 0.0009)).mean() ** weight
        height, width = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
        a, b = (i[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)) for i in (a, b))
    coarsest = structural_similarity(
        a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, use_sample_covariance=False
    )
    return product * coarsest**0.1333


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_ms_ssim_equals_a_slow_reference(noise: float) -> None:
    a, b = pair(193, 221, noise)
    assert ms_ssim(a, b) == pytest.approx(slow_ms_ssim(a.numpy(), b.numpy()), abs=1e-6)


def test_ms_ssim_needs_five_scales() -> None:
    a, b = pair(175, 300, 0.1)
    assert ms_ssim(a, b) is None
    a, b = pair(176, 300, 0.1)
    assert 0 < ms_ssim(a, b) < 1


def test_psnr_of_a_known_error_and_of_its_mask() -> None:
    a = torch.zeros(8, 8, 3, dtype=torch.float64)
    b = a.clone()
    b[:4] = 0.1
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    assert psnr(a, b) == pytest.approx(-10 * math.log10(0.005))
    assert psnr(a, b, mask) == pytest.approx(20.0)
    assert psnr(a, b, ~mask) == math.inf
    assert psnr(a, b, torch.zeros_like(mask)) is None


def test_equal_images_are_perfect() -> None:
    a, _ = pair(176, 176, 0.1)
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1.0)
    assert ms_ssim(a, a) == pytest.approx(1.0)


def test_ssim_has_no_value_without_a_whole_window() -> None:
    a, b = pair(10, 40, 0.1)
    assert ssim(a, b) is None
    a, b = pair(40, 40, 0.1)
    border = torch.ones(40, 40, dtype=torch.bool)
    border[5:-5, 5:-5] = False
    assert ssim(a, b, border) is None


def test_quantise_rounds_to_levels_and_clamps() -> None:
    levels = quantise(torch.tensor([-1.0, 0.0019, 0.002, 0.5, 2.0]))
    assert levels.tolist() == pytest.approx([0, 0, 1 / 255, 128 / 255, 1])


def test_masked_ms_ssim_sees_only_errors_inside_the_mask() -> None:
    a, b = torch.rand(192, 256, 3, dtype=torch.float64), torch.rand(192, 256, 3, dtype=torch.float64)
    mask = torch.zeros(192, 256, dtype=torch.bool)
    mask[:, :64] = True
    outside = torch.where(mask[..., None], b, a)  # wrong outside the mask alone
    assert ms_ssim(outside, b, mask) == pytest.approx(1.0)
    assert ms_ssim(a, b, mask) == pytest.approx(ms_ssim(torch.where(mask[..., None], a, b), b))
    assert ms_ssim(a, b) < ms_ssim(a, b, mask) < 1
    assert ms_ssim(a, b, torch.zeros_like(mask)) is None


def test_sharpness_is_the_ratio_of_gradient_energies() -> None:
    ramp = torch.linspace(0, 1, 11, dtype=torch.float64).expand(5, 11)[..., None].expand(-1, -1, 3)
    assert sharpness(ramp / 2, ramp) == pytest.approx(0.25)
    mask = torch.zeros(5, 11, dtype=torch.bool)
    mask[:, :6] = True
    half = torch.where(mask[..., None], ramp / 2, ramp)
    assert sharpness(half, ramp, mask) == pytest.approx(0.25)  # the step at the mask's border does not count
    assert sharpness(half, ramp, ~mask) == pytest.approx(1.0)
    assert sharpness(ramp, torch.zeros_like(ramp)) is None
    assert sharpness(ramp, ramp, torch.zeros_like(mask)) is None


def test_flicker_is_in_levels_of_the_masked_pixels() -> None:
    a = torch.zeros(2, 4, 3, dtype=torch.float64)
    b = a.clone()
    b[0, :2] = 3 / 255
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[0] = True
    assert flicker(a, b) == pytest.approx(3 / 4)
    assert flicker(a, b, mask) == pytest.approx(3 / 2)
    assert flicker(a, b, torch.zeros_like(mask)) is None


def test_depth_error_ignores_scale_and_unknown_depth() -> None:
    truth = torch.tensor([[1.0, 2.0, 4.0, 0.0]], dtype=torch.float64)
    depth = torch.tensor([[3.0, 6.0, 6.0, 99.0]], dtype=torch.float64)
    scale = median_scale(depth, truth)
    assert scale == pytest.approx(2 / 6)
    assert abs_rel(depth * scale, truth) == pytest.approx(0.5 / 3)  # 1, 2, 2 against 1, 2, 4
    assert abs_rel(depth * scale, truth, torch.tensor([[True, True, False, True]])) == pytest.approx(0.0)
    unknown = torch.tensor([[False, False, False, True]])
    assert abs_rel(depth, truth, unknown) is None
    assert median_scale(depth, truth, unknown) is None
