import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from dpdy_core.errors import BadSettings, JobFailed
from dpdy_core.prior import hub, ldm3d
from dpdy_core.prior.ldm3d import load_ldm3d
from dpdy_core.prior.tiny import Layout, build_tiny, build_toy
from dpdy_core.prior.tokenizer import build_tokenizer


def altered(folder, tmp_path, part, **changes):
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    path = copy / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(copy)


def replaced_vae(folder, tmp_path, channels):
    copy = tmp_path / "altered"
    shutil.copytree(folder, copy)
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        latent_channels=4,
        block_out_channels=(8,),
        norm_num_groups=8,
    )
    vae.save_pretrained(copy / "vae")
    return str(copy)


def test_saved_model_loads_with_equal_parameters(toy, toy_folder):
    loaded = load_ldm3d(str(toy_folder), "cpu")
    for part in ("vae", "unet", "text_encoder"):
        wanted, got = getattr(toy, part).state_dict(), getattr(loaded, part).state_dict()
        assert wanted.keys() == got.keys()
        assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert not any(p.requires_grad for p in loaded.unet.parameters())
    assert loaded.prediction_type == "v_prediction"
    assert loaded.alphas_cumprod[-1] == 0
    assert loaded.resolution == 32


def test_diffusers_and_transformers_read_the_layout(toy_folder):
    assert AutoencoderKL.from_pretrained(toy_folder / "vae").config.in_channels == 4
    assert UNet2DConditionModel.from_pretrained(toy_folder / "unet").config.in_channels == 4
    assert CLIPTextModel.from_pretrained(toy_folder / "text_encoder").config.hidden_size == 16
    assert CLIPTokenizer.from_pretrained(toy_folder / "tokenizer").tokenize("sks") == ["sks</w>"]
    assert DDIMScheduler.from_pretrained(toy_folder / "scheduler").config.rescale_betas_zero_snr


def test_large_weights_are_stored_in_shards(tmp_path):
    model = build_toy()
    model.save(tmp_path, max_shard_size="500KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    loaded = load_ldm3d(str(tmp_path), "cpu")
    assert torch.equal(loaded.unet.conv_in.weight, model.unet.conv_in.weight)


def test_dpdy_tiny_stays_within_its_size():
    model = build_tiny()
    count = sum(p.numel() for part in (model.vae, model.unet, model.text_encoder) for p in part.parameters())
    assert 2 * count < 32 * 2**20  # in half precision
    assert model.resolution == Layout().resolution == 128


@pytest.mark.parametrize("channels", [3, 6])
def test_vae_without_four_channels_is_refused(toy_folder, tmp_path, channels):
    with pytest.raises(BadSettings, match=f"has {channels} input channels") as caught:
        load_ldm3d(replaced_vae(toy_folder, tmp_path, channels), "cpu")
    assert "ldm3d-4c" in caught.value.remedy


def test_unet_that_does_not_fit_the_vae_is_refused():
    toy = build_toy()
    with pytest.raises(BadSettings, match="latents have 8"):
        ldm3d.check_layout(
            AutoencoderKL(in_channels=4, out_channels=4, latent_channels=8).config, toy.unet.config, "it"
        )


def test_missing_weights_say_how_to_get_them(toy_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(toy_folder, copy)
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(JobFailed, match="cannot be loaded"):
        load_ldm3d(str(copy), "cpu")


def test_torn_weights_are_an_expected_failure(toy_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(toy_folder, copy)
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(JobFailed, match="cannot be loaded"):
        load_ldm3d(str(copy), "cpu")


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(JobFailed, match="no unet folder"):
        load_ldm3d(str(tmp_path), "cpu")


def test_bundled_model_that_is_absent_names_the_training_command(tmp_path, monkeypatch):
    monkeypatch.setattr(ldm3d, "BUNDLED_FOLDER", tmp_path / "absent")
    with pytest.raises(JobFailed) as caught:
        load_ldm3d("dpdy-tiny", "cpu")
    assert "dpdy_core.prior.pretrain" in caught.value.remedy


def test_hub_id_that_cannot_be_fetched_says_how_to_get_it(monkeypatch):
    def refuse(*_, local_files_only=False, **__):
        raise (FileNotFoundError if local_files_only else ConnectionError)("no network")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(JobFailed, match="could not be fetched") as caught:
        load_ldm3d("someone/some-model", "cpu")
    assert "hf download someone/some-model" in caught.value.remedy


def test_name_that_is_no_hub_id_is_bad_settings():
    with pytest.raises(BadSettings, match="neither a folder nor a hub id"):
        load_ldm3d("../../no//such model", "cpu")


def test_sampling_is_ddim_as_diffusers_does_it(toy):
    """Against DDIMScheduler.step with the same network, noise and trailing timesteps."""
    steps, guidance, prompts = 5, 3.0, ["a red ball", "a scene"]
    rgb, depth = toy.sample(prompts, steps, guidance, torch.Generator().manual_seed(3))
    scheduler = toy.scheduler
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3))
        text, empty = toy.encode_prompt(prompts), toy.encode_prompt(["", ""])
        for t in scheduler.timesteps:
            u, c = (toy.unet(latents, t, encoder_hidden_states=e).sample for e in (empty, text))
            latents = scheduler.step(u + guidance * (c - u), t, latents).prev_sample
        image = toy.vae.decode(latents / toy.vae.config.scaling_factor).sample.clamp(-1, 1) / 2 + 0.5
    torch.testing.assert_close(torch.cat([rgb, depth], 1), image, atol=2e-4, rtol=1e-3)


def test_sampling_follows_its_generator_and_can_be_stopped(toy):
    first, _ = toy.sample(["a scene"], 2, 1.0, torch.Generator().manual_seed(0), size=(24, 16))
    again, _ = toy.sample(["a scene"], 2, 1.0, torch.Generator().manual_seed(0), size=(24, 16))
    other, _ = toy.sample(["a scene"], 2, 1.0, torch.Generator().manual_seed(1), size=(24, 16))
    assert first.shape == (1, 3, 16, 24)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.sample(["a scene"], 2, 1.0, torch.Generator(), check=stop)


def test_encoding_passes_a_gradient_to_all_four_channels(toy):
    rgbd = torch.zeros((1, 4, 32, 32)).requires_grad_(True)
    toy.encode(rgbd).square().sum().backward()
    assert (rgbd.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


def test_prompts_of_any_length_fit(toy):
    assert toy.encode_prompt(["", "word " * 500, "Zürich 東京"]).shape == (3, 77, 16)


def test_tokenizer_knows_words_and_the_rare_token():
    words = ["ball", "box", "robot", "left", "a", "striped", "strip", "oxbow"]
    tokenizer = build_tokenizer(words, 77)
    assert tokenizer.tokenize("A sks Robot, striped strip oxbow box") == [
        *("a</w>", "sks</w>", "robot</w>", ",</w>", "striped</w>", "strip</w>", "oxbow</w>", "box</w>")
    ]
    ids = tokenizer("a ball", padding="max_length").input_ids
    assert (ids[0], ids[3], ids[-1], len(ids)) == (tokenizer.bos_token_id, *[tokenizer.eos_token_id] * 2, 77)


def test_tokenizer_reads_unknown_text_and_survives_saving(tmp_path):
    tokenizer = build_tokenizer(["ball"], 77)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    text = "an unseen ball in zürich"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text
    assert again(text).input_ids == tokenizer(text).input_ids


def test_vocabulary_depends_on_the_set_of_words_alone():
    forward, backward = build_tokenizer(["ball", "box"], 77), build_tokenizer(["box", "ball", "box"], 77)
    assert forward.get_vocab() == backward.get_vocab()
