import json
import math
import shutil

import cv2
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from dpdy_core.errors import BadInput, Cancelled
from dpdy_core.ingest.clip import read_transforms, write_transforms
from dpdy_core.prior import dreambooth
from dpdy_core.prior.dreambooth import cosine_decay, finetune_prior, instance_prompt
from dpdy_core.prior.finetuned import load_finetuned
from dpdy_core.prior.frames import TrainingFrames, held_out_frames, without_holes
from dpdy_core.prior.ldm3d import load_ldm3d
from dpdy_core.progress import Reporter


def silent():
    events = []
    return Reporter(events.append, interval=0), events


def with_prior(config, **changes):
    return config.model_copy(update={"prior": config.prior.model_copy(update=changes)})


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def train(run, config):
    reporter, events = silent()
    reporter.start("prior")
    finetune_prior(run, config, reporter)
    return json.loads((run.prior / "prior.json").read_text()), events


def stop_after(step):
    """A reporter that is asked to stop when it hears of `step`."""
    reporter = Reporter(lambda event: reporter.request_stop() if event.get("step") == step else None, interval=0)
    reporter.start("prior")
    return reporter


def test_lora_finetuning_lowers_the_denoising_loss(run, settings):
    record, events = train(run, with_prior(settings, steps=100, rank=4, class_images=0, interpolation=1.0))
    assert record["denoising_loss_after"] < 0.95 * record["denoising_loss_before"]
    assert record["prompt"] == "a sks scene"
    assert files(run.prior) == ["prior.json", "pytorch_lora_weights.safetensors", "samples/000.png"]
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["step"] == steps[-1]["total"] == 100
    assert all(np.isfinite(e["numbers"]["loss"]) for e in steps)


def test_sample_picture_shows_colour_beside_depth(run, settings):
    _, events = train(run, with_prior(settings, steps=1))
    assert cv2.imread(str(run.prior / "samples/000.png")).shape == (32, 64, 3)
    assert [e["path"] for e in events if e["event"] == "preview"] == ["prior/samples/000.png"]


def test_frames_without_depth_are_reported(run, settings):
    _, events = train(run, with_prior(settings, steps=1))
    assert [e["message"] for e in events if e["event"] == "warning"] == [
        "1 of 3 training frames have no depth: the prior sees them as flat"
    ]


@pytest.mark.parametrize("text", [False, True])
def test_merged_lora_predicts_as_the_trained_adapters_did(run, settings, monkeypatch, text):
    trained = {}
    monkeypatch.setattr(dreambooth, "save_lora", _spy(dreambooth.save_lora, trained))
    train(run, with_prior(settings, train_text_encoder=text))
    noisy, t = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    merged, record = load_finetuned(run.prior, "cpu")
    base = load_ldm3d(settings.prior.model, "cpu")

    def predict(model):
        with torch.no_grad():
            return model.predict(noisy, t, model.encode_prompt([record["prompt"]]))

    torch.testing.assert_close(predict(merged), predict(trained["model"]), atol=1e-5, rtol=1e-4)
    assert (predict(merged) - predict(base)).abs().max() > 1e-3
    changed = not torch.allclose(merged.encode_prompt(["a sks scene"]), base.encode_prompt(["a sks scene"]), atol=1e-6)
    assert changed == text


def _spy(save, seen):
    def spy(model, folder, text):
        seen["model"] = model
        save(model, folder, text)

    return spy


def test_diffusers_loads_the_lora_file(run, settings):
    train(run, settings)
    unet = UNet2DConditionModel.from_pretrained(f"{settings.prior.model}/unet")
    unet.load_lora_adapter(run.prior, prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    merged, record = load_finetuned(run.prior, "cpu")
    noisy, t = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    with torch.no_grad():
        states = merged.encode_prompt([record["prompt"]])
        expected = merged.predict(noisy, t, states)
        torch.testing.assert_close(unet(noisy, t, encoder_hidden_states=states).sample, expected, atol=1e-5, rtol=1e-4)


def test_full_finetuning_writes_a_unet_and_text_model(run, settings):
    config = with_prior(settings, finetune="full", learning_rate=1e-3, steps=20, train_text_encoder=True)
    record, _ = train(run, config)
    assert record["denoising_loss_after"] < record["denoising_loss_before"]
    merged, _ = load_finetuned(run.prior, "cpu")
    base = load_ldm3d(settings.prior.model, "cpu")
    assert not torch.equal(merged.unet.conv_in.weight, base.unet.conv_in.weight)
    weights = "embeddings.token_embedding.weight"
    assert not torch.equal(merged.text_encoder.state_dict()[weights], base.text_encoder.state_dict()[weights])


@pytest.mark.parametrize("changes", [{"finetune": "none"}, {"steps": 0}])
def test_without_finetuning_only_the_record_is_written(run, settings, changes):
    record, _ = train(run, with_prior(settings, **changes))
    assert files(run.prior) == ["prior.json"]
    assert (record["method"], record["prompt"]) == ("none", "a scene")
    merged, _ = load_finetuned(run.prior, "cpu")
    base = load_ldm3d(settings.prior.model, "cpu")
    assert torch.equal(merged.unet.conv_in.weight, base.unet.conv_in.weight)


@pytest.mark.parametrize(("method", "stop"), [("lora", 1), ("lora", 9), ("full", 4)])
def test_cancelled_run_continues_bit_identically(run, settings, method, stop):
    """Step 1 is the class images', steps 2 to 9 are the training's; the one after the request is still made."""
    config = with_prior(settings, finetune=method, learning_rate=1e-3)
    whole, _ = train(run, config)
    weights = "unet/diffusion_pytorch_model.safetensors" if method == "full" else "pytorch_lora_weights.safetensors"
    expected = load_file(run.prior / weights)
    for path in files(run.prior):
        (run.prior / path).unlink()
    with pytest.raises(Cancelled):
        finetune_prior(run, config, stop_after(stop))
    assert not (run.prior / "prior.json").exists()
    resumed, events = train(run, config)
    assert [e["step"] for e in events if e["event"] == "step"] == [1, *range(stop + 2, 10)]
    assert resumed == whole
    got = load_file(run.prior / weights)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize("torn", [1, 2])
def test_torn_checkpoints_give_way_to_older_ones(run, settings, torn):
    """Two are kept: of one torn the other is used, of both the finetuning starts again; the result is the same."""
    every_step = with_prior(settings, checkpoint_seconds=1e-6)
    whole, _ = train(run, every_step)
    with pytest.raises(Cancelled):
        finetune_prior(run, every_step, stop_after(4))
    checkpoints = sorted((run.prior / "checkpoints").glob("step_*.safetensors"))
    assert len(checkpoints) == 2
    for checkpoint in checkpoints[-torn:]:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    resumed, events = train(run, every_step)
    assert resumed == whole
    assert sum("is damaged" in e["message"] for e in events if e["event"] == "warning") == torn
    assert not (run.prior / "checkpoints").exists()


def test_checkpoint_of_other_settings_is_not_used(run, settings):
    with pytest.raises(Cancelled):
        finetune_prior(run, settings, stop_after(4))
    record, events = train(run, with_prior(settings, learning_rate=1e-4))
    assert record["denoising_loss_after"] is not None
    assert 2 in [e["step"] for e in events if e["event"] == "step"]


def test_capture_without_poses_is_bad_input(run, settings):
    document = read_transforms(run.capture)
    for frame in document["frames"]:
        del frame["transform_matrix"]
    write_transforms(run.capture, document)
    with pytest.raises(BadInput, match="no training frame"):
        train(run, settings)


def test_instance_prompt_puts_the_token_before_the_noun():
    assert instance_prompt("a scene", "sks") == "a sks scene"
    assert instance_prompt("The old town", "zwx") == "The zwx old town"
    assert instance_prompt("scene", "sks") == "sks scene"


def test_crops_hold_the_frame_and_are_never_mirrored(run):
    frames = TrainingFrames(run.capture, 32, 8, torch.device("cpu"), silent()[0])
    fixed, valid = frames.fixed_crops([0, 1, 2])
    assert fixed.shape == (3, 4, 32, 32)
    torch.testing.assert_close(valid, torch.ones(3, 1, 32, 32))
    assert fixed[2, 3].abs().max() < 1e-3  # the frame without depth is flat
    box = fixed[0, 3] > 0.5
    columns = torch.arange(32)[box.any(0)]
    assert columns.float().mean() < 15.5  # the near box is left of the centre in frame 0, as in the picture
    crops, _ = frames.random_crops(24, torch.Generator().manual_seed(0))
    assert crops.abs().max() <= 1
    assert len({crop.sum().item() for crop in crops}) == 24


def test_crops_have_the_shape_of_the_frames(run):
    frames = TrainingFrames(run.capture, 96, 8, torch.device("cpu"), silent()[0])  # 48 x 40 pixels
    assert frames.size == (96, 80)
    whole, _ = frames.fixed_crops([0])
    assert whole.shape == (1, 4, 80, 96)
    rows, columns = (whole[0, 3] > 0.5).nonzero().unbind(-1)
    # the near box takes columns 8 to 24 of 48 and rows 10 to 30 of 40
    assert rows.min() == pytest.approx(20, abs=2)
    assert rows.max() == pytest.approx(59, abs=2)
    assert columns.min() == pytest.approx(16, abs=2)
    assert columns.max() == pytest.approx(47, abs=2)
    crops, valid = frames.random_crops(12, torch.Generator().manual_seed(0))
    assert crops.shape == (12, 4, 80, 96)
    assert valid.shape == (12, 1, 80, 96)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_weights_used_lie_between_the_base_and_the_finetuned_ones(run, settings, method):
    """Merged weights, for whole UNets and for LoRA's product alike."""

    def weights(folder):
        return load_finetuned(folder, "cpu")[0].unet.state_dict()

    base = load_ldm3d(settings.prior.model, "cpu").unet.state_dict()
    train(run, with_prior(settings, finetune=method, interpolation=1.0))
    whole = weights(run.prior)
    shutil.rmtree(run.prior)
    train(run, with_prior(settings, finetune=method, interpolation=0.25))
    part = weights(run.prior)
    moved = [name for name in base if not torch.equal(base[name], whole[name])]
    assert len(moved) > 4
    for name in base:
        torch.testing.assert_close(part[name], torch.lerp(base[name], whole[name], 0.25), atol=1e-6, rtol=1e-5)


def test_the_learning_rate_falls_to_nothing():
    assert [cosine_decay(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])


def test_the_last_steps_change_less(run, settings, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a, **k: rates.append(self.param_groups[0]["lr"]) or step(self, *a, **k)
    )
    train(run, with_prior(settings, steps=4, learning_rate=1e-3))
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])


def test_holes_in_depth_take_the_nearest_value():
    depth = np.zeros((5, 7), np.float32)
    depth[:, 0], depth[:, 6] = 1, 2
    filled = without_holes(depth)
    assert filled[:, :3].tolist() == [[1, 1, 1]] * 5
    assert filled[:, 4:].tolist() == [[2, 2, 2]] * 5
    assert without_holes(np.zeros((3, 3), np.float32)).tolist() == [[1] * 3] * 3


def test_frames_held_out_score_and_never_train(run):
    frames = TrainingFrames(run.capture, 32, 8, torch.device("cpu"), silent()[0])
    assert (frames.held_out, frames.used, frames.scored(4)) == ([1], [0, 2], [1])
    frames.images[1] = 255
    frames.images[0] = frames.images[2] = 0
    crops, _ = frames.random_crops(32, torch.Generator().manual_seed(0))
    torch.testing.assert_close(crops[:, :3], torch.full_like(crops[:, :3], -1))
    scored, _ = frames.fixed_crops(frames.scored(4))
    torch.testing.assert_close(scored[:, :3], torch.ones_like(scored[:, :3]))


def test_share_of_frames_held_out_of_the_finetuning():
    assert [held_out_frames(n) for n in (1, 2, 3, 5, 12, 30)] == [[], [], [1], [4], [4], [4, 12, 20, 28]]
