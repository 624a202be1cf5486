import json
import math
import shutil
import time

import cv2
import pytest
import torch

from dpdy_core.errors import JobFailed
from dpdy_core.prior import pretrain
from dpdy_core.prior.autoencoder import (
    autoencoder_psnr,
    cropped,
    kl_divergence,
    reconstruction_loss,
    restored,
    set_scaling_factor,
    varied,
)
from dpdy_core.prior.denoiser import LatentBuffer, held_out_loss, replaced
from dpdy_core.prior.ldm3d import load_ldm3d
from dpdy_core.prior.motion import load_motion_adapter
from dpdy_core.prior.phase import Average, Phase, checked, learning_rate
from dpdy_core.prior.scene_buffer import SceneBuffer
from dpdy_core.progress import Reporter

CPU = torch.device("cpu")
SMALL = [
    *("--device", "cpu", "--toy", "--size", "32", "--scenes", "16", "--chunk", "8"),
    *("--batch", "4", "--vae-batch", "4", "--snapshot-seconds", "0"),
    *("--motion-batch", "2", "--clips", "4", "--frames", "4", "--judged", "9"),
]


def test_pretraining_leaves_a_complete_model_with_figures_and_pictures(tmp_path):
    out, preview = tmp_path / "model", tmp_path / "preview"
    arguments = ["--out", str(out), "--preview", str(preview), "--seconds", "6", *SMALL]
    assert pretrain.main(arguments) == 0
    record = json.loads((out / "pretrain.json").read_text())
    assert record["complete"]
    assert record["scenes"] >= 16
    assert math.isfinite(record["held_out_loss"])
    assert {"psnr_rgb", "psnr_depth", "psnr_rgb_flat_depth", "scaling_factor"} <= record["vae"].keys()
    assert {"held_out_loss", "held_out_loss_without", "flicker", "flicker_without"} <= record["motion"].keys()
    assert {"samples", "renders", "reconstructions", "chance"} <= record["shape_score"].keys()
    assert record["consistency"].keys() == {"samples", "scenes", "reconstructions"}
    files = list(out.rglob("*.safetensors"))
    assert record["weights_mib"] == pytest.approx(sum(file.stat().st_size for file in files) / 2**20, abs=0.01)
    assert {"torch", "diffusers", "transformers"} <= record["environment"]["packages"].keys()
    model = load_ldm3d(str(out), "cpu")
    assert model.resolution == 32
    assert model.vae.config.scaling_factor == pytest.approx(record["vae"]["scaling_factor"])
    assert cv2.imread(str(preview / "samples.png")).shape == (2 * 64, 10 * 32, 3)
    assert cv2.imread(str(preview / "vae.png")).shape == (3 * 64, 10 * 32, 3)
    assert cv2.imread(str(preview / "motion.png")).shape == (3 * 64, 4 * 32, 3)
    words = {word for caption in json.loads((preview / "captions.json").read_text()) for word in caption.split()}
    assert words

    adapter = load_motion_adapter(str(out), "cpu").state_dict()
    assert all(torch.isfinite(value).all() for value in adapter.values())

    again = tmp_path / "again"
    later = ["--start", str(out), "--vae-share", "0", "--motion-share", "0", "--judge-share", "0", "--seconds", "2"]
    assert pretrain.main(["--out", str(again), *later, *SMALL]) == 0
    assert json.loads((again / "pretrain.json").read_text())["earlier"] == record
    continued = load_ldm3d(str(again), "cpu")
    assert torch.equal(continued.vae.encoder.conv_in.weight, model.vae.encoder.conv_in.weight)
    assert not torch.equal(continued.unet.conv_in.weight, model.unet.conv_in.weight)
    kept = load_motion_adapter(str(again), "cpu").state_dict()
    assert all(torch.equal(value, adapter[name]) for name, value in kept.items())


def test_the_adapter_alone_can_be_trained_further(tmp_path, toy_folder):
    start, out = tmp_path / "start", tmp_path / "out"
    shutil.copytree(toy_folder, start)
    (start / "pretrain.json").write_text("{}")
    only = ["--start", str(start), "--vae-share", "0", "--unet-share", "0", "--judge-share", "0", "--seconds", "2"]
    assert pretrain.main(["--out", str(out), *only, *SMALL]) == 0
    record = json.loads((out / "pretrain.json").read_text())
    assert record["complete"]
    assert record["motion"]["steps"] >= 1
    assert "unet" not in record
    before, after = load_ldm3d(str(start), "cpu", torch.float16), load_ldm3d(str(out), "cpu", torch.float16)
    for one, other in ((before.vae, after.vae), (before.unet, after.unet), (before.text_encoder, after.text_encoder)):
        state = one.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert any("proj_out" in name for name in load_motion_adapter(str(out), "cpu").state_dict())


def test_parts_are_kept_only_from_an_earlier_model(tmp_path, capsys):
    with pytest.raises(SystemExit):
        pretrain.parse(["--out", str(tmp_path), "--seconds", "1", "--unet-share", "0"])
    assert "--start" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert pretrain.main(["--out", str(tmp_path), "--seconds", "5", *SMALL]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_buffer_replaces_its_oldest_scenes(toy):
    scenes = SceneBuffer(16, 32, 8, CPU, seed=0)
    first = scenes.renew()
    packed = scenes.packed(first)
    assert packed.shape == (8, 4, 32, 32)
    assert packed.abs().max() <= 1
    assert all(scenes.captions[:8])
    scenes.renew()
    assert (scenes.count, scenes.made) == (16, 16)
    latents = LatentBuffer(scenes, toy, torch.Generator(), batch_size=5)
    before = latents.latents.clone()
    latents.renew()
    assert scenes.count == 16
    assert torch.equal(latents.latents[8:], before[8:])
    assert not torch.equal(latents.latents[:8], before[:8])
    assert not torch.equal(scenes.packed(first), packed)
    expected = toy.encode(scenes.packed(torch.arange(3)))
    torch.testing.assert_close(latents.latents[:3].float(), expected, atol=1e-2, rtol=1e-2)
    assert torch.equal(latents.ids[2].long(), toy.token_ids([scenes.captions[2]])[0])
    drawn, ids = latents.draw(4, True, torch.Generator())
    assert (drawn.shape, ids.shape) == ((4, 4, 4, 4), (4, 77))


def test_varied_depth_covers_constant_rescaled_and_swapped():
    rgbd = torch.linspace(-1, 1, 4096 * 4 * 2 * 8).reshape(8, 4096, 4, 2).permute(1, 2, 3, 0).contiguous()
    result = varied(rgbd, torch.Generator().manual_seed(0))
    assert result.shape == rgbd.shape
    assert result.abs().max() <= 1
    depth = result[:, 3]
    flat = (depth.amax(dim=(1, 2)) - depth.amin(dim=(1, 2))) == 0
    assert flat.float().mean() == pytest.approx(0.125, abs=0.02)
    mirrored = (result == rgbd.flip(-1)).flatten(1).float().mean(1) > 0.7
    assert mirrored.float().mean() == pytest.approx(0.25, abs=0.1)


def test_captions_are_replaced_in_their_shares():
    ids = torch.full((20_000, 3), 7)
    fixed = torch.tensor([[1, 1, 1], [2, 2, 2]])
    result = replaced(ids, fixed, torch.Generator().manual_seed(0))[:, 0]
    assert result.eq(1).float().mean() == pytest.approx(0.10, abs=0.01)
    assert result.eq(2).float().mean() == pytest.approx(0.03, abs=0.01)


def test_kl_divergence_is_that_of_torch():
    mean, logvar = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)


def test_reconstruction_loss_sees_edges():
    target = torch.zeros(1, 4, 8, 8)
    smooth, checks = torch.full_like(target, 0.1), torch.full_like(target, 0.1)
    checks[..., ::2] *= -1
    assert reconstruction_loss(smooth, target) == pytest.approx(
        5 * 0.1, rel=1e-3
    )  # a broad error counts on every level
    assert reconstruction_loss(checks, target) == pytest.approx(2 * 0.1 + 0.5 * 0.2, rel=1e-3)  # an edge on the finest


def test_restored_is_the_vae_itself_and_can_be_compiled_whole(toy):
    rgbd = torch.rand((2, 4, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    posterior = toy.vae.encode(rgbd).latent_dist
    expected = toy.vae.decode(posterior.mean + posterior.std * noise).sample
    for function in (restored, torch.compile(restored, backend="eager", fullgraph=True, dynamic=False)):
        image, mean, logvar = function(toy.vae, rgbd, noise)
        torch.testing.assert_close(image, expected)
        torch.testing.assert_close(mean, posterior.mean)
        torch.testing.assert_close(logvar, posterior.logvar)


def test_crops_lie_inside_and_move():
    images = torch.arange(8.0).expand(1, 1, 8, 8)
    lefts = [int(cropped(images, step)[0, 0, 0, 0]) for step in range(1, 30)]
    assert all(cropped(images, step).shape[2:] == (4, 4) for step in range(1, 30))
    assert set(lefts) == {0, 1, 2, 3, 4}


def test_scaling_factor_gives_latents_unit_deviation(toy):
    rgbd = torch.rand((8, 4, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    set_scaling_factor(toy.vae, rgbd)
    assert float(toy.encode(rgbd).std()) == pytest.approx(1, rel=1e-4)


def test_psnr_of_a_perfect_and_of_a_shifted_autoencoder(toy, monkeypatch):
    rgbd = torch.full((2, 4, 8, 8), 0.5)

    class Latent:
        def __init__(self, packed):
            self.latent_dist, self.packed = self, packed

        def mode(self):
            return self.packed

    class Decoded:
        def __init__(self, packed):
            self.sample = packed + 0.02

    monkeypatch.setattr(toy.vae, "encode", Latent)
    monkeypatch.setattr(toy.vae, "decode", Decoded)
    assert autoencoder_psnr(toy.vae, rgbd) == {"psnr_rgb": 40.0, "psnr_depth": 40.0, "psnr_rgb_flat_depth": 40.0}


def test_held_out_loss_is_repeatable(toy):
    rgbd = torch.rand((70, 4, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    captions = ["a red ball"] * 70
    assert held_out_loss(toy, rgbd, captions, 0) == held_out_loss(toy, rgbd, captions, 0)


def test_phase_ends_at_its_deadline_and_reports():
    events = []
    phase = Phase("unet", time.monotonic() + 0.3, Reporter(events.append, interval=0), tick=0.05)
    ticks = 0
    for _ in phase:
        time.sleep(0.01)
        if phase.ticking:
            ticks += 1
            phase.report(4, loss=1.0)
    assert 0.3 <= phase.done()["seconds"] + 0.1 < 1.5
    assert ticks >= 2
    assert phase.progress == 1
    assert events[-2]["numbers"]["samples_per_second"] > 0


def test_a_phase_without_time_still_makes_one_step():
    assert list(Phase("vae", time.monotonic() - 1, Reporter())) == [1]


def test_learning_rate_warms_up_stays_and_falls():
    rates = [learning_rate(1.0, p) for p in (0.0, 0.01, 0.02, 0.3, 0.7, 1.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.505, 0.01])


def test_average_forgets_its_start_and_follows():
    live, averaged = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    live.weight.data.fill_(1.0)
    averaged.weight.data.fill_(0.0)
    average = Average([live], [averaged], decay=0.9)
    value = 0.0
    for step in range(1, 200):
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        value = decay * value + (1 - decay)
        assert float(averaged.weight) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_an_expected_failure(value):
    with pytest.raises(JobFailed, match="diverged"):
        checked(torch.tensor(value), "the denoiser")
