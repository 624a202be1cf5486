"""Metrics against scikit-image, torchmetrics and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from dpdy_core.output.metrics import (
    abs_rel,
    box_ssim,
    delta1,
    flicker,
    median_scale,
    ms_ssim,
    pck_t,
    psnr,
    quantise,
    rmse,
    sharpness,
    ssim,
    truncate,
)


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
    """Wang et al. 2003, equation 7, with scipy's Gaussian; the coarsest scale mirrored at its border."""

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (1.5, 1.5, 0), truncate=3.5, mode="mirror")

    def terms(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance = blur(a * b) - blur(a) * blur(b)
        variances = blur(a * a) - blur(a) ** 2 + blur(b * b) - blur(b) ** 2
        luminance = (2 * blur(a) * blur(b) + 0.0001) / (blur(a) ** 2 + blur(b) ** 2 + 0.0001)
        return (2 * covariance + 0.0009) / (variances + 0.0009), luminance

    product = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        product *= terms(a, b)[0][5:-5, 5:-5].mean() ** weight
        height, width = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
        a, b = (i[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)) for i in (a, b))
    structure, luminance = terms(a, b)
    return product * (structure * luminance).mean() ** 0.1333


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_ms_ssim_equals_a_slow_reference_and_torchmetrics(noise: float) -> None:
    a, b = pair(193, 221, noise)
    theirs = multiscale_structural_similarity_index_measure(batch(b), batch(a), data_range=1.0)
    assert ms_ssim(a, b) == pytest.approx(slow_ms_ssim(a.numpy(), b.numpy()), abs=1e-6)
    assert ms_ssim(a, b) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_psnr_equals_scikit_image(noise: float) -> None:
    a, b = pair(48, 64, noise)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1.0), abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_box_ssim_equals_scikit_images_defaults_on_bytes(noise: float) -> None:
    a, b = pair(48, 61, noise)
    x, y = ((image * 255).round().byte().numpy() for image in (a, b))
    theirs, full = structural_similarity(x, y, channel_axis=2, full=True)
    mask = torch.zeros(48, 61, dtype=torch.bool)
    mask[8:30, 10:50] = True
    assert box_ssim(a, b) == pytest.approx(theirs, abs=1e-6)
    assert box_ssim(a, b, mask) == pytest.approx(full[mask.numpy()].mean(), abs=1e-6)


def test_arrays_and_tensors_give_the_same_and_wrong_shapes_are_refused() -> None:
    a, b = pair(40, 50, 0.1)
    mask = torch.zeros(40, 50, 1)
    mask[:20] = 1.0
    for metric in (psnr, ssim, box_ssim, sharpness, flicker):
        assert metric(a.numpy(), b.numpy(), mask.numpy()) == metric(a, b, mask[..., 0] > 0)
    with pytest.raises(ValueError, match="H, W, 3"):
        psnr(a, b[:-1])
    with pytest.raises(ValueError, match="mask"):
        ssim(a, b, mask[1:])
    with pytest.raises(ValueError, match="divide"):
        psnr((a * 255).byte(), (b * 255).byte())


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


def test_truncate_cuts_as_numpy_does() -> None:
    values = torch.rand(40, 50, 3) * 1.2 - 0.1
    cut = (values.numpy() * 255).clip(0, 255).astype(np.uint8)
    assert np.array_equal((truncate(values) * 255).round().byte().numpy(), cut)
    levels = torch.arange(256).byte()
    assert torch.equal((truncate(levels.float() / 255) * 255).round().byte(), levels)


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
    assert rmse(depth * scale, truth) == pytest.approx(2 / 3**0.5)
    assert delta1(depth * scale, truth) == pytest.approx(2 / 3)
    unknown = torch.tensor([[False, False, False, True]])
    assert rmse(depth, truth, unknown) is None
    assert delta1(depth, truth, unknown) is None
    assert abs_rel(depth, truth, unknown) is None
    assert median_scale(depth, truth, unknown) is None


def test_pck_t_is_the_mean_of_pairs_that_share_points() -> None:
    """Against plain loops over DyCheck's definition."""
    rng = np.random.default_rng(0)
    frames, points, size = 5, 7, (30, 40)
    true = rng.uniform(0, 30, (frames, points, 2))
    seen = rng.random((frames, points)) < 0.6
    seen[3] = False  # shares no point with any frame
    predicted = true[None] + rng.normal(0, 1.5, (frames, frames, points, 2))
    means = []
    for i in range(frames):
        for j in range(frames):
            common = [k for k in range(points) if seen[i, k] and seen[j, k]]
            if i != j and common:
                hits = [math.dist(predicted[i, j, k], true[j, k]) < 0.05 * 40 for k in common]
                means.append(sum(hits) / len(hits))
    assert pck_t(predicted, true, seen, size) == pytest.approx(sum(means) / len(means))
    assert 0.2 < sum(means) / len(means) < 0.9
    assert pck_t(np.broadcast_to(true, (5, 5, 7, 2)).copy(), true, seen, size) == 1.0
    assert pck_t(predicted, true, np.zeros_like(seen), size) is None
    with pytest.raises(ValueError, match="belong together"):
        pck_t(predicted[1:], true, seen, size)
