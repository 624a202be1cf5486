"""Video distillation: the gradient by its definition, and exactly none on the frames that are given."""

import shutil

import pytest
import torch

from dpdy_core.config import VideoSdsConfig
from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.prior.finetuned import write_record
from dpdy_core.prior.guidance import predicted_noise
from dpdy_core.prior.motion import build_motion_adapter, save_motion_adapter
from dpdy_core.prior.rgbd import pack
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.tiny import build_toy
from dpdy_core.prior.video_guidance import VideoGuidance

FRAMES = 5
LIVE = [1, 3]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Motion modules for clips of eight frames that do mix the frames."""
    modules = build_motion_adapter(build_toy().unet, frames=8)
    generator = torch.Generator().manual_seed(5)
    for name, value in modules.named_parameters():
        if "proj_out" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    save_motion_adapter(modules, folder)
    return folder


@pytest.fixture
def image(tmp_path, toy_folder, adapter):
    """The image prior of a model that has its own motion modules."""
    shutil.copytree(toy_folder, tmp_path / "model")
    shutil.copytree(adapter, tmp_path / "model" / "motion_adapter")
    record = {"base": str(tmp_path / "model"), "method": "none", "prompt": "a scene", "resolution": 32}
    write_record(tmp_path / "prior", {**record, "rank": 4, "text": False})
    return RgbdGuidance(tmp_path / "prior", VideoSdsConfig(), "cpu")


def settings(**changes):
    return VideoSdsConfig.model_validate({"gradient_clip": 1e6, "guidance": 2.0, "frames": FRAMES, **changes})


def clip(size=32):
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand((FRAMES, 3, size, size), generator=generator).requires_grad_(True)
    depth = (1 + torch.rand((FRAMES, 1, size, size), generator=generator)).requires_grad_(True)
    return rgb, depth


def gradients(guidance, act=None, live=LIVE, change=None):
    rgb, depth = clip()
    if change is not None:
        rgb.data[change] = 1 - rgb.data[change]
    loss, numbers = guidance.loss(rgb, depth, act, live, 0.5, torch.Generator().manual_seed(1))
    loss.backward()
    return rgb.grad, depth.grad, numbers


@pytest.mark.parametrize("own", [True, False])
def test_gradient_is_the_sds_gradient_of_the_clip(image, adapter, own):
    """Against the definition: one t and the schedule of the motion modules for the clip, J^T w (eps_hat - eps) / L."""
    guidance = VideoGuidance(image, None if own else str(adapter), settings())
    got_rgb, got_depth, numbers = gradients(guidance)
    model = image.model
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    alphas = model.alphas_cumprod if own else (1 - betas).cumprod(0).float()
    rgb, depth = clip()
    generator = torch.Generator().manual_seed(1)
    latents = model.encode(pack(rgb, depth))
    t = 20 + (380 * torch.rand(1, generator=generator, dtype=torch.float64)).long()
    noise = torch.randn(latents.shape, generator=generator)
    a = alphas[t]
    with torch.no_grad():
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        said = [
            guidance.unet(noisy.movedim(0, 1)[None], t, encoder_hidden_states=model.encode_prompt([p] * FRAMES))
            .sample[0]
            .movedim(1, 0)
            for p in ("", "a scene")
        ]
        velocity = said[0] + 2 * (said[1] - said[0])
        g = (1 - a) * (predicted_noise(velocity, noisy, a.expand(FRAMES), "v_prediction") - noise)
    want = torch.autograd.grad(latents[LIVE], (rgb, depth), g[LIVE] / len(LIVE))
    torch.testing.assert_close(got_rgb, want[0], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(got_depth, want[1], atol=1e-5, rtol=1e-3)
    assert float(numbers["timestep"]) == int(t)
    assert float(numbers["gradient"]) == pytest.approx(float(g[LIVE].square().mean().sqrt()), rel=1e-3)


@pytest.mark.parametrize("form", ["epsilon", "x0"])
def test_frames_that_are_given_get_exactly_no_gradient(image, form):
    guidance = VideoGuidance(image, None, settings(form=form))
    rgb, depth, _ = gradients(guidance)
    given = [k for k in range(FRAMES) if k not in LIVE]
    for gradient in (rgb, depth):
        assert gradient[given].eq(0).all()
        assert (gradient[LIVE].abs().amax(dim=(1, 2, 3)) > 0).all()


def test_the_given_frames_have_a_say(image):
    guidance = VideoGuidance(image, None, settings())
    plain, other = gradients(guidance)[0], gradients(guidance, change=4)[0]
    assert ((plain - other)[LIVE].abs().amax(dim=(1, 2, 3)) > 1e-4 * plain.abs().max()).all()


def test_pixels_that_must_not_act_get_exactly_no_gradient(image):
    act = torch.ones((FRAMES, 1, 32, 32))
    act[:, :, :16] = 0
    rgb, depth, _ = gradients(VideoGuidance(image, None, settings()), act)
    assert rgb[:, :, :16].eq(0).all()
    assert depth[:, :, :16].eq(0).all()
    assert rgb[LIVE, :, 16:].abs().max() > 0


def test_only_live_frames_are_encoded_with_gradient(image):
    kept = []
    encode = image.model.encode
    image.model.encode = lambda rgbd: (kept.append((len(rgbd), torch.is_grad_enabled())), encode(rgbd))[1]
    gradients(VideoGuidance(image, None, settings()))
    assert kept == [(2, True), (3, False)]


def test_all_frames_may_be_live(image):
    rgb, _, _ = gradients(VideoGuidance(image, None, settings()), live=list(range(FRAMES)))
    assert (rgb.abs().amax(dim=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("form", ["epsilon", "x0"])
def test_a_network_that_returns_nan_gives_no_gradient(image, form):
    guidance = VideoGuidance(image, None, settings(form=form))
    guidance.unet.conv_out.weight.data.fill_(torch.nan)
    rgb, depth, _ = gradients(guidance)
    assert rgb.eq(0).all()
    assert depth.eq(0).all()


def test_clips_longer_than_the_motion_modules_allow_are_refused(image):
    with pytest.raises(BadSettings, match="at most 8"):
        VideoGuidance(image, None, settings(frames=9))


def test_a_prior_without_motion_modules_is_a_clear_failure(image, tmp_path):
    shutil.rmtree(tmp_path / "model" / "motion_adapter")
    with pytest.raises(JobFailed, match="no motion_adapter folder"):
        VideoGuidance(image, None, settings())
