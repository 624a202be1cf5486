import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpdy_core.prior.rgbd import MAX_SORTED, absolute_inverse_depth, pack, percentiles, relative_inverse_depth, unpack


def scene(height=24, width=30):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand((2, 3, height, width), generator=generator)
    depth = 1 + 5 * torch.rand((2, 1, height, width), generator=generator)
    return rgb, depth


def test_unpack_returns_the_colours_and_depth_that_were_packed():
    rgb, depth = scene()
    packed = pack(rgb, depth)
    assert packed.shape == (2, 4, 24, 30)
    assert packed.abs().max() <= 1
    again, relative = unpack(packed)
    torch.testing.assert_close(again, rgb)
    # affine in inverse depth between the percentiles: fit it back
    inside = (relative[0] > 0.01) & (relative[0] < 0.99)
    x, y = relative[0][inside].double(), (1 / depth[0])[inside].double()
    design = torch.stack([x, torch.ones_like(x)], 1)
    fit = torch.linalg.lstsq(design, y[:, None]).solution
    torch.testing.assert_close((design @ fit)[:, 0], y, atol=1e-6, rtol=1e-5)
    assert fit[0] > 0  # near is large


def test_ends_are_the_robust_percentiles():
    depth = 1 / torch.linspace(1, 2, 10_001, dtype=torch.float64).reshape(1, 1, 73, 137)
    value = relative_inverse_depth(depth).flatten()
    assert value[200] == pytest.approx(-1, abs=1e-3)
    assert value[9800] == pytest.approx(1, abs=1e-3)
    assert value[5000] == pytest.approx(0, abs=1e-3)
    assert value[:190].eq(-1).all()
    assert value[9810:].eq(1).all()


@given(scale=st.floats(1e-3, 1e3))
def test_unit_of_depth_does_not_matter(scale):
    _, depth = scene()
    torch.testing.assert_close(
        relative_inverse_depth(depth.double() * scale), relative_inverse_depth(depth.double()), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("value", [1e-3, 1.0, 7.3, 1e5, float("inf")])
def test_constant_depth_is_zero(value):
    depth = torch.full((1, 1, 8, 8), value)
    assert relative_inverse_depth(depth).abs().max() < 1e-4


def test_almost_constant_depth_is_not_stretched():
    depth = 3 + 1e-4 * torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    assert relative_inverse_depth(depth).abs().max() < 0.05


def test_pixels_without_depth_are_zero_and_change_nothing_else():
    _, depth = scene()
    holes = depth.clone()
    holes[0, 0, :3] = 0
    holes[0, 0, 3, 0] = float("nan")
    value = relative_inverse_depth(holes)
    assert value[0, 0, :3].eq(0).all()
    assert value[0, 0, 3, 0] == 0
    assert value.isfinite().all()
    torch.testing.assert_close(value[1], relative_inverse_depth(depth)[1])
    known = depth[0, 0, 4:]
    torch.testing.assert_close(
        percentiles(1 / depth[:1, :, 4:], torch.ones_like(known, dtype=torch.bool)[None, None], (0.5,))[0].flatten(),
        (1 / known).flatten().sort().values[[round((known.numel() - 1) * 0.5)]],
    )


def test_image_without_any_depth_is_zero():
    assert relative_inverse_depth(torch.zeros((1, 1, 4, 4))).eq(0).all()


def test_gradient_is_that_of_the_affine_map_with_fixed_statistics():
    _, depth = scene(6, 6)
    depth = depth.double().requires_grad_(True)
    relative_inverse_depth(depth).sum().backward()
    inverse = (1 / depth).detach()
    for image in range(2):
        ordered = inverse[image].flatten().sort().values
        low, high = ordered[round(35 * 0.02)], ordered[round(35 * 0.98)]
        inside = (inverse[image] > low) & (inverse[image] < high)
        expected = torch.where(inside, -(inverse[image] ** 2) * 2 / (high - low), 0.0)
        edge = (inverse[image] == low) | (inverse[image] == high)
        torch.testing.assert_close(depth.grad[image][~edge], expected[~edge])


def test_large_images_are_subsampled_evenly():
    count = 4 * MAX_SORTED
    values = torch.arange(count, dtype=torch.float64).reshape(1, 1, 256, 256)
    low, high = percentiles(values, torch.ones_like(values, dtype=torch.bool), (0.02, 0.98))
    assert float(low) == pytest.approx(0.02 * count, rel=1e-2)
    assert float(high) == pytest.approx(0.98 * count, rel=1e-3)


def test_relative_depth_turns_back_into_the_views_own():
    depth = scene()[1]
    relative = relative_inverse_depth(depth)
    inverse = absolute_inverse_depth(relative, depth)
    inside = relative.abs() < 0.999
    torch.testing.assert_close(inverse[inside], 1 / depth[inside], rtol=1e-4, atol=1e-6)
    assert inside.float().mean() > 0.9
    assert absolute_inverse_depth(torch.full_like(depth, -1e6), depth).min() > 0
