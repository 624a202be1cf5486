import pytest
import torch

from dpdy_core.config import RefinementConfig, SdsConfig
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.inpainting import inpaint, known_latents
from dpdy_core.prior.push_pull import push_pull
from dpdy_core.prior.rgbd import pack, unpack
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.rgbd_painter import RgbdPainter
from dpdy_core.section import Ramp, constant

RECORD = {"method": "none", "prompt": "a scene", "resolution": 32, "rank": 4, "text": False}


def view(batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((batch, 3, 32, 32), generator=generator), 1 + torch.rand((batch, 1, 32, 32), generator=generator)


def left_known(batch=2):
    known = torch.zeros((batch, 1, 32, 32))
    known[..., :16] = 1
    return known


def painted(model, rgbd, known, strength=0.6, steps=3, guidance=2.0, seed=1):
    with torch.no_grad():
        empty, text = model.encode_prompt(["", "a scene"]).chunk(2)
    texts = (states.expand(len(rgbd), -1, -1) for states in (text, empty))
    return inpaint(model, rgbd, known, *texts, strength, steps, guidance, torch.Generator().manual_seed(seed))


def test_a_latent_is_known_where_all_its_pixels_are():
    known = torch.ones((1, 1, 8, 8))
    known[0, 0, 3, 4] = 0
    assert known_latents(known, 4)[0, 0].tolist() == [[1, 0], [1, 1]]


def test_known_pixels_come_back_bit_for_bit_and_the_others_change(toy):
    rgbd = pack(*view())
    result = painted(toy, rgbd, left_known())
    assert torch.equal(result[..., :16], rgbd[..., :16])
    assert (result[..., 16:] - rgbd[..., 16:]).abs().mean() > 0.05
    assert torch.equal(painted(toy, rgbd, torch.ones_like(left_known())), rgbd)


def test_strength_zero_is_the_picture(toy):
    rgbd = pack(*view())
    assert torch.equal(painted(toy, rgbd, left_known(), strength=0.0), rgbd)


def test_equal_generators_paint_equal_pictures(toy):
    rgbd, known = pack(*view()), left_known()
    first = painted(toy, rgbd, known)
    torch.rand(1)
    assert torch.equal(first, painted(toy, rgbd, known))
    assert not torch.equal(first, painted(toy, rgbd, known, seed=2))


def test_nothing_known_and_full_strength_is_a_sample_of_the_model(toy):
    """What the picture showed is forgotten: the same as DDIM from noise (Ldm3d.sample)."""
    rgbd = pack(*view())
    got = painted(toy, rgbd, torch.zeros_like(left_known()), strength=1.0, steps=4, guidance=3.0)
    rgb, depth = toy.sample(["a scene"] * 2, 4, 3.0, torch.Generator().manual_seed(1))
    for mine, theirs in zip(unpack(got), (rgb, depth), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_the_network_sees_the_known_latents_with_the_noise_of_each_step(toy, monkeypatch):
    rgbd, seen = pack(*view()), []
    predict = toy.predict_guided
    monkeypatch.setattr(
        toy, "predict_guided", lambda x, t, *rest: seen.append((x.clone(), t.clone())) or predict(x, t, *rest)
    )
    painted(toy, rgbd, left_known(), strength=0.6, steps=3)
    with torch.no_grad():
        own = toy.encode(rgbd)
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(1))
    assert [int(t[0]) for _, t in seen] == [599, 399, 199]
    for latents, t in seen:
        torch.testing.assert_close(latents[..., :4], toy.noisy(own, noise, t)[..., :4], atol=1e-5, rtol=1e-4)
    assert (seen[1][0] - toy.noisy(own, noise, seen[1][1]))[..., 4:].abs().mean() > 0.01


def test_the_unknown_part_becomes_what_the_prior_knows(toy, monkeypatch):
    """With a network that knows one image, the unknown part is that image, through the VAE."""
    rgbd = pack(*view(1))
    with torch.no_grad():
        goal = toy.encode(pack(torch.full((1, 3, 32, 32), 0.25), torch.ones((1, 1, 32, 32))))

    def knows_one_image(noisy, timesteps, _text, _empty, _scale, _context):
        a = toy.alphas_cumprod[timesteps][:, None, None, None]
        return a.sqrt() * (noisy - a.sqrt() * goal) / (1 - a).sqrt() - (1 - a).sqrt() * goal

    monkeypatch.setattr(toy, "predict_guided", knows_one_image)
    with torch.no_grad():
        latents = torch.cat([toy.encode(rgbd)[..., :4], goal[..., 4:]], dim=-1)
        want = toy.decode(latents).clamp(-1, 1)
    result = painted(toy, rgbd, left_known(1), steps=5)
    torch.testing.assert_close(result[..., 16:], want[..., 16:], atol=1e-4, rtol=1e-3)


@pytest.fixture
def prior(tmp_path, toy_folder):
    write_record(tmp_path / "prior", {**RECORD, "base": str(toy_folder)})
    return RgbdGuidance(tmp_path / "prior", SdsConfig(), "cpu")


def test_the_painter_keeps_what_is_known_and_the_units_of_depth(prior):
    painter = RgbdPainter(prior, RefinementConfig(sampling_steps=2, strength=constant(0.3)))
    rgb, depth = view(1)
    known = left_known(1)

    def paint(scale=1.0, progress=0.5):
        return painter.paint(rgb, depth * scale, known, progress, torch.Generator().manual_seed(0))

    colour, inverse = paint()
    assert painter.resolution == 32
    assert torch.equal(colour[..., :16], rgb[..., :16])
    torch.testing.assert_close(inverse[..., :16], 1 / depth[..., :16])
    assert colour.min() >= 0
    assert colour.max() <= 1
    assert inverse.min() > 0
    assert inverse.max() < 1 / depth.min() * 1.2
    torch.testing.assert_close(paint(scale=8.0)[1], inverse / 8, rtol=1e-4, atol=1e-6)


def test_the_painter_follows_its_strength(prior):
    config = RefinementConfig(sampling_steps=2, strength=Ramp(start=0.5, end=0.0))
    painter = RgbdPainter(prior, config)
    (rgb, depth), known = view(1), left_known(1)
    early, late = (painter.paint(rgb, depth, known, p, torch.Generator().manual_seed(0))[0] for p in (0.0, 1.0))
    torch.testing.assert_close(late, push_pull(rgb, known))
    assert (early - late)[..., 16:].abs().mean() > 0.05


def test_the_painter_does_not_look_at_what_nobody_saw(prior):
    painter = RgbdPainter(prior, RefinementConfig(sampling_steps=2, strength=constant(0.3)))
    (rgb, depth), known = view(1), left_known(1)
    speckle = torch.where(known > 0.5, rgb, 1 - rgb), torch.where(known > 0.5, depth, 7 * depth)
    first, second = (painter.paint(*v, known, 0.5, torch.Generator().manual_seed(0)) for v in ((rgb, depth), speckle))
    for mine, theirs in zip(first, second, strict=True):
        assert torch.equal(mine, theirs)
