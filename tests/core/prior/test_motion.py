"""Motion modules: they fit the UNets, start as no change, mix frames once trained, and are found or missed clearly."""

import shutil

import pytest
import torch
from diffusers import DDIMScheduler, MotionAdapter, UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import CrossAttnDownBlockMotion, DownBlockMotion, UpBlockMotion
from safetensors.torch import load_file

from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.prior import hub, ldm3d
from dpdy_core.prior.finetuned import add_lora, merge_lora, save_lora
from dpdy_core.prior.motion import (
    build_motion_adapter,
    find_motion_adapter,
    load_motion_adapter,
    motion_schedule,
    motion_unet,
    predict_clip,
    save_motion_adapter,
)
from dpdy_core.prior.tiny import Layout, build_tiny, build_toy, zero_snr_schedule


def sd_shaped():
    """SD 1.x's block layout at toy width: cross-attention everywhere but in the last block, two layers a block."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16, 32, 32),
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=16,
    ).eval()


UNETS = {"tiny": lambda: build_toy().frozen().unet, "sd": sd_shaped}


@pytest.fixture(params=list(UNETS))
def unet(request):
    return UNETS[request.param]()


def trained(unet, frames=16, scale=0.3):
    """An adapter whose output projections are no longer zero."""
    adapter = build_motion_adapter(unet, frames)
    generator = torch.Generator().manual_seed(5)
    for name, value in adapter.named_parameters():
        if "proj_out" in name:
            value.data = scale * torch.randn(value.shape, generator=generator)
    return adapter.eval().requires_grad_(False)


def clip(frames=5, size=8):
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn((2, frames, 4, size, size), generator=generator)
    return noisy, torch.tensor([300, 700]), torch.randn((2, 7, 16), generator=generator)


def image_prediction(unet, noisy, timesteps, text):
    """Every frame for itself through the image UNet."""
    frames = [unet(noisy[:, k], timesteps, encoder_hidden_states=text).sample for k in range(noisy.shape[1])]
    return torch.stack(frames, dim=1)


@torch.no_grad()
def test_a_new_adapter_changes_nothing(unet):
    inputs = clip()
    video = motion_unet(unet, build_motion_adapter(unet))
    torch.testing.assert_close(predict_clip(video, *inputs), image_prediction(unet, *inputs), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_trained_motion_modules_let_each_frame_see_the_others(unet):
    noisy, timesteps, text = clip()
    video = motion_unet(unet, trained(unet))
    before = predict_clip(video, noisy, timesteps, text)
    changed = noisy.clone()
    changed[0, 2] += 1
    moved = (predict_clip(video, changed, timesteps, text) - before).abs().amax(dim=(2, 3, 4))
    assert (moved[0] > 1e-4).all()  # every frame of this clip
    assert (moved[1] < 1e-6).all()  # no frame of the other


def animatediffs(unet):
    """Motion modules as AnimateDiff has them: also in the middle block, one number of heads."""
    config = unet.config
    torch.manual_seed(2)
    return MotionAdapter(config.block_out_channels, config.layers_per_block, 1, 1, 1, 2, config.norm_num_groups).eval()


@torch.no_grad()
@pytest.mark.parametrize("make", [trained, animatediffs])
def test_the_same_as_diffusers_own_assembly(unet, make):
    """Against `from_unet2d`, which copies the weights in."""
    adapter, (noisy, timesteps, text) = make(unet), clip()
    assert (adapter.mid_block is None) == (make is trained)
    theirs = type(motion_unet(unet, adapter)).from_unet2d(unet, adapter).eval()
    states = text.repeat_interleave(noisy.shape[1], dim=0)
    wanted = theirs(noisy.transpose(1, 2), timesteps, encoder_hidden_states=states).sample.transpose(1, 2)
    torch.testing.assert_close(predict_clip(motion_unet(unet, adapter), noisy, timesteps, text), wanted)


def test_weights_are_shared_and_none_is_left_out(unet):
    adapter = trained(unet)
    video = motion_unet(unet, adapter)
    own = {p.data_ptr() for m in (unet, adapter) for p in m.parameters()}
    assert {p.data_ptr() for p in video.parameters()} == own
    assert not any(t.is_meta for t in (*video.parameters(), *video.buffers()))
    assert {id(p) for n, p in video.named_parameters() if "motion_modules" in n} == {
        id(p) for p in adapter.parameters()
    }


def test_spatial_blocks_get_motion_too():
    unet = build_toy().unet
    video = motion_unet(unet, build_motion_adapter(unet))
    assert [type(b) for b in video.down_blocks] == [DownBlockMotion, CrossAttnDownBlockMotion, CrossAttnDownBlockMotion]
    assert isinstance(video.up_blocks[-1], UpBlockMotion)
    assert all(len(b.motion_modules) == len(b.resnets) for b in (*video.down_blocks, *video.up_blocks))


@torch.no_grad()
def test_a_finetuned_unet_is_animated_with_its_finetuning(tmp_path):
    model, inputs = build_toy().frozen(), clip()
    plain = image_prediction(model.unet, *inputs)
    trainee = build_toy()
    add_lora(trainee, 2, text=True, seed=1)
    for name, value in trainee.unet.named_parameters():
        if "lora_B" in name:
            value.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    save_lora(trainee, tmp_path, text=True)
    merge_lora(model, load_file(tmp_path / "pytorch_lora_weights.safetensors"), 2, text=True)
    wanted = image_prediction(trainee.unet, *inputs)
    assert (wanted - plain).abs().max() > 1e-3
    torch.testing.assert_close(image_prediction(model.unet, *inputs), wanted, atol=1e-4, rtol=1e-3)
    video = motion_unet(model.unet, build_motion_adapter(model.unet))
    torch.testing.assert_close(predict_clip(video, *inputs), wanted, atol=1e-4, rtol=1e-3)
    assert not any("lora" in name for name, _ in model.unet.named_parameters())
    assert not any("lora" in name for name, _ in model.text_encoder.named_parameters())


def test_only_the_motion_modules_train():
    unet = build_toy().frozen().unet
    adapter = build_motion_adapter(unet)
    noisy, timesteps, text = clip()
    predict_clip(motion_unet(unet, adapter), noisy, timesteps, text).square().sum().backward()
    assert all(p.grad is not None for n, p in adapter.named_parameters() if "proj_out" in n)
    assert all(p.grad is None for p in unet.parameters())


def test_equal_seeds_give_equal_weights_and_leave_global_randomness_alone():
    unet = build_toy().unet
    state = torch.get_rng_state()
    first, again, other = (build_motion_adapter(unet, 8, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_adapter_of_dpdy_tiny_stays_within_its_size(tmp_path):
    save_motion_adapter(build_motion_adapter(dict(build_tiny(layout=Layout()).unet.config)).half(), tmp_path)
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 7.5 * 2**20


def test_an_adapter_for_another_unet_is_refused():
    toy = build_toy().unet
    with pytest.raises(BadSettings, match="made for channels"):
        motion_unet(toy, build_motion_adapter(sd_shaped()))
    deeper = MotionAdapter(toy.config.block_out_channels, 2, motion_num_attention_heads=2, motion_norm_num_groups=8)
    with pytest.raises(BadSettings, match="layers per block"):
        motion_unet(toy, deeper)


@pytest.fixture
def folder(tmp_path):
    save_motion_adapter(trained(build_toy().unet), tmp_path / "model" / "motion_adapter")
    return tmp_path / "model"


def test_an_adapter_is_found_in_its_folder_and_in_its_models(folder):
    wanted = trained(build_toy().unet).state_dict()
    for name in (folder, folder / "motion_adapter"):
        got = load_motion_adapter(str(name), "cpu")
        assert all(torch.equal(wanted[key], value) for key, value in got.state_dict().items())
        assert not any(p.requires_grad for p in got.parameters())


def test_the_bundled_adapter_that_is_absent_is_a_clear_failure(folder, monkeypatch):
    monkeypatch.setattr(ldm3d, "BUNDLED_FOLDER", folder)
    assert find_motion_adapter("dpdy-tiny") == folder / "motion_adapter"
    shutil.rmtree(folder / "motion_adapter")
    with pytest.raises(JobFailed, match="no motion_adapter folder") as caught:
        find_motion_adapter("dpdy-tiny")
    assert "dpdy_core.prior.pretrain" in caught.value.remedy


def test_torn_or_unsafe_weights_are_an_expected_failure(folder):
    file = folder / "motion_adapter" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(JobFailed, match="cannot be loaded"):
        load_motion_adapter(str(folder), "cpu")
    file.unlink()
    torch.save({}, file.with_suffix(".bin"))
    with pytest.raises(JobFailed, match="cannot be loaded"):
        load_motion_adapter(str(folder), "cpu")


def test_hub_ids_come_from_the_cache_first_and_else_say_how(folder, tmp_path, monkeypatch):
    asked = []

    def snapshot(name, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if not local_files_only:
            raise ConnectionError("no network")
        return str(folder if name == "some/adapter" else tmp_path / "elsewhere")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert find_motion_adapter("some/adapter") == folder / "motion_adapter"
    assert asked == [("some/adapter", True)]
    with pytest.raises(JobFailed, match="could not be fetched") as caught:  # another part of it is all that is cached
        find_motion_adapter("some/model")
    assert "prior.motion_adapter" in caught.value.remedy


def test_the_schedule_is_the_adapters(folder, tmp_path):
    own = zero_snr_schedule()
    assert motion_schedule(None, own) is own
    assert motion_schedule(str(folder), own) is own
    elsewhere = tmp_path / "adapter"
    shutil.copytree(folder / "motion_adapter", elsewhere)
    scaled = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    linear = motion_schedule(str(elsewhere), scaled)
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    torch.testing.assert_close(linear.alphas_cumprod.double(), (1 - betas).cumprod(0), atol=1e-5, rtol=1e-4)
    assert linear.config.clip_sample is False
    assert linear.config.prediction_type == scaled.config.prediction_type
    own.save_config(elsewhere)
    assert torch.equal(motion_schedule(str(elsewhere), scaled).alphas_cumprod, own.alphas_cumprod)
