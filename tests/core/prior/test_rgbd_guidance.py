import pytest
import torch

from dpdy_core.config import SdsConfig
from dpdy_core.errors import JobFailed
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.guidance import predicted_noise
from dpdy_core.prior.rgbd import pack
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.section import Ramp

RECORD = {"method": "none", "prompt": "a scene", "resolution": 32, "rank": 4, "text": False}


@pytest.fixture
def prior(tmp_path, toy_folder):
    write_record(tmp_path / "prior", {**RECORD, "base": str(toy_folder)})
    return tmp_path / "prior"


def view(size=32):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand((2, 3, size, size), generator=generator).requires_grad_(True)
    depth = (1 + torch.rand((2, 1, size, size), generator=generator)).requires_grad_(True)
    return rgb, depth


def gradients(guidance, act=None, progress=0.5, size=32):
    rgb, depth = view(size)
    loss, numbers = guidance.loss(rgb, depth, act, progress, torch.Generator().manual_seed(1))
    loss.backward()
    return rgb.grad, depth.grad, numbers


def test_gradient_is_the_sds_gradient_through_the_encoder(prior):
    """Against the definition: J^T w (eps_hat - eps) / B, with noise and timesteps drawn alike."""
    sds = SdsConfig(gradient_clip=1e6, guidance=2.0)
    guidance = RgbdGuidance(prior, sds, "cpu")
    got_rgb, got_depth, numbers = gradients(guidance)
    model = guidance.model
    rgb, depth = view()
    generator = torch.Generator().manual_seed(1)
    latents = model.encode(pack(rgb, depth))
    t = 20 + (380 * torch.rand(2, generator=generator, dtype=torch.float64)).long()
    noise = torch.randn(latents.shape, generator=generator)
    alpha = model.alphas_cumprod[t]
    with torch.no_grad():
        a = alpha[:, None, None, None]
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        u, c = (model.predict(noisy, t, model.encode_prompt([p] * 2)) for p in ("", "a scene"))
        hat = predicted_noise(u + 2 * (c - u), noisy, alpha, "v_prediction")
        g = (1 - a) * (hat - noise)
    want_rgb, want_depth = torch.autograd.grad(latents, (rgb, depth), g / 2)
    torch.testing.assert_close(got_rgb, want_rgb, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(got_depth, want_depth, atol=1e-5, rtol=1e-3)
    assert got_depth.abs().max() > 0
    assert float(numbers["sds_gradient"]) == pytest.approx(float(g.square().mean().sqrt()), rel=1e-3)


@pytest.mark.parametrize("size", [32, 20, 48])
def test_pixels_that_must_not_act_get_exactly_no_gradient(prior, size):
    act = torch.zeros((2, 1, size, size))
    act[:, :, : size // 2] = 1
    rgb, depth, _ = gradients(RgbdGuidance(prior, SdsConfig(), "cpu"), act, size=size)
    assert rgb[:, :, size // 2 :].eq(0).all()
    assert depth[:, :, size // 2 :].eq(0).all()
    assert rgb[:, :, : size // 2].abs().max() > 0
    assert depth[:, :, : size // 2].abs().max() > 0


def test_acting_everywhere_is_no_mask(prior):
    guidance = RgbdGuidance(prior, SdsConfig(), "cpu")
    masked, plain = gradients(guidance, torch.ones((2, 1, 32, 32))), gradients(guidance)
    torch.testing.assert_close(masked[0], plain[0])
    torch.testing.assert_close(masked[1], plain[1])


def test_rgb_only_leaves_depth_alone(prior):
    rgb, depth, _ = gradients(RgbdGuidance(prior, SdsConfig(rgb_only=True), "cpu"))
    assert depth is None
    assert rgb.abs().max() > 0


def test_timesteps_follow_progress(prior):
    guidance = RgbdGuidance(prior, SdsConfig(t_min=0.02, t_max=Ramp(start=0.9, end=0.021)), "cpu")
    late = gradients(guidance, progress=1.0)[2]["sds_timestep"]
    early = gradients(guidance, progress=0.0)[2]["sds_timestep"]
    assert late == 20
    assert early > 20


def test_clip_bounds_the_latent_gradient(prior):
    numbers = gradients(RgbdGuidance(prior, SdsConfig(gradient_clip=1e-3), "cpu"))[2]
    assert float(numbers["sds_gradient"]) <= 1e-3 * 1.001


def test_same_generator_same_gradient_and_no_global_randomness(prior):
    guidance = RgbdGuidance(prior, SdsConfig(), "cpu")
    first = gradients(guidance)[0]
    torch.rand(1)
    assert torch.equal(first, gradients(guidance)[0])


@pytest.mark.parametrize("form", ["epsilon", "x0"])
def test_descending_the_loss_brings_the_view_nearer_to_the_prior(prior, form):
    """With a network that knows one image, distillation must move a view's latent towards it."""
    guidance = RgbdGuidance(prior, SdsConfig(guidance=1.0, t_max=Ramp(start=0.5, end=0.5), form=form), "cpu")
    model = guidance.model
    rgb, depth = (x.detach()[:1] for x in view())
    with torch.no_grad():
        goal = model.encode(pack(rgb, depth))

    def knows_one_image(noisy, timesteps, _text, _empty, _scale):
        a = model.alphas_cumprod[timesteps][:, None, None, None]
        noise = (noisy - a.sqrt() * goal) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * goal
        return velocity, velocity

    model.predict_pair = knows_one_image
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    optimiser, generator = torch.optim.Adam([image], lr=0.02), torch.Generator().manual_seed(0)

    def distance():
        with torch.no_grad():
            return float((model.encode(pack(image, depth)) - goal).square().mean())

    before = distance()
    for _ in range(40):
        optimiser.zero_grad()
        guidance.loss(image, depth, None, 0.0, generator)[0].backward()
        optimiser.step()
    assert distance() < 0.5 * before


@pytest.mark.parametrize("form", ["epsilon", "x0"])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_network_that_returns_nan_gives_a_finite_gradient(prior, form, share):
    guidance = RgbdGuidance(prior, SdsConfig(form=form), "cpu")
    predict = guidance.model.predict_pair

    def broken(*arguments):
        pair = predict(*arguments)
        for prediction in pair:
            prediction[torch.rand(prediction.shape, generator=torch.Generator().manual_seed(0)) < share] = torch.nan
        return pair

    guidance.model.predict_pair = broken
    rgb, depth, _ = gradients(guidance)
    assert torch.isfinite(rgb).all()
    assert torch.isfinite(depth).all()
    if share == 1.0:
        assert rgb.eq(0).all()


def test_several_views_are_encoded_and_denoised_in_one_batch(prior):
    guidance = RgbdGuidance(prior, SdsConfig(), "cpu")
    batches = []
    for name in ("encode", "predict_pair"):
        function = getattr(guidance.model, name)
        spy = lambda x, *rest, function=function: (batches.append(len(x)), function(x, *rest))[1]  # noqa: E731
        setattr(guidance.model, name, spy)
    rgb, depth, _ = gradients(guidance)
    assert batches == [2, 2]
    assert (rgb.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert (depth.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_folder_without_a_prior_is_an_expected_failure(tmp_path):
    with pytest.raises(JobFailed, match="no finished prior"):
        RgbdGuidance(tmp_path, SdsConfig(), "cpu")
