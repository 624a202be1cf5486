import torch
from torch.nn.functional import avg_pool2d

from dpdy_core.prior.push_pull import push_pull


def picture(height=13, width=10):
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_known_pixels_come_back_bit_for_bit():
    known = (torch.rand((2, 1, 13, 10), generator=torch.Generator().manual_seed(1)) > 0.6).double()
    filled = push_pull(picture(), known)
    there = known.expand(-1, 3, -1, -1) > 0.5
    assert torch.equal(filled[there], picture()[there])


def test_what_is_unknown_decides_nothing():
    known = torch.zeros((2, 1, 13, 10), dtype=torch.float64)
    known[..., 2:9, 3:6] = 1
    spoilt = torch.where(known > 0.5, picture(), torch.full_like(picture(), torch.nan))
    assert torch.equal(push_pull(picture(), known), push_pull(spoilt, known))


def test_one_known_pixel_fills_all():
    known = torch.zeros((1, 1, 9, 7), dtype=torch.float64)
    known[0, 0, 4, 1] = 1
    value = picture(9, 7)[:1]
    torch.testing.assert_close(push_pull(value, known), value[:, :, 4:5, 1:2].expand_as(value))


def test_two_levels_by_hand():
    """A known row above an unknown one: each cell below is interpolated between the means of 2 x 2 pixels."""
    value = torch.tensor([[1.0, 3.0, 5.0, 9.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)[None, None]
    known = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)[None, None]
    # the coarser level is (2, 7), of each half known, and so mixed with the coarsest, their mean 4.5
    left, right = (2 + 4.5) / 2, (7 + 4.5) / 2
    wanted = torch.tensor([left, 0.75 * left + 0.25 * right, 0.25 * left + 0.75 * right, right], dtype=torch.float64)
    torch.testing.assert_close(push_pull(value, known)[0, 0, 1], wanted)


def test_a_fill_stays_within_what_is_known_and_is_smooth():
    value, known = picture(64, 64), torch.zeros((2, 1, 64, 64), dtype=torch.float64)
    known[..., :24, :] = 1
    filled = push_pull(value, known)
    seen, made = value[..., :24, :], filled[..., 24:, :]
    assert float(made.min()) >= float(seen.min())
    assert float(made.max()) <= float(seen.max())
    roughness = (filled - avg_pool2d(filled, 3, 1, 1, count_include_pad=False)).abs().mean(dim=(0, 1, 3))
    assert float(roughness[26:63].max()) < 0.1 * float(roughness[:22].mean())


def test_nothing_known_gives_zero():
    assert push_pull(picture(), torch.zeros((2, 1, 13, 10), dtype=torch.float64)).eq(0).all()
