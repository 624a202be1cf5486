"""Pictures with gaps: what is hidden, what a model that completes is shown, and that it learns to fill them."""

import dataclasses
import json
import math

import pytest
import torch

from dpdy_core.config import SdsConfig
from dpdy_core.errors import BadSettings
from dpdy_core.prior import pretrain
from dpdy_core.prior.completion import (
    CELL,
    LARGEST_ROLL,
    LARGEST_SHIFT,
    SHARPEST,
    completion_timesteps,
    filled,
    hidden_weight,
    known_latents,
    seen_from_beside,
    sometimes,
)
from dpdy_core.prior.denoiser import LatentBuffer, denoising_loss, held_out_loss
from dpdy_core.prior.dreambooth import DreamBooth
from dpdy_core.prior.finetuned import load_finetuned, write_record
from dpdy_core.prior.inpainting import expected, expected_latents, inpaint
from dpdy_core.prior.ldm3d import check_layout, load_ldm3d
from dpdy_core.prior.motion import build_motion_adapter, motion_unet, predict_clip
from dpdy_core.prior.push_pull import push_pull
from dpdy_core.prior.rgbd import pack
from dpdy_core.prior.rgbd_guidance import RgbdGuidance
from dpdy_core.prior.scene_buffer import SceneBuffer
from dpdy_core.prior.tiny import TOY, build_toy, widened
from dpdy_core.progress import Reporter


def view(batch=2, size=32):
    generator = torch.Generator().manual_seed(0)
    shape = (size, size)
    return torch.rand((batch, 3, *shape), generator=generator), 1 + torch.rand((batch, 1, *shape), generator=generator)


def left_known(batch=2, size=32):
    known = torch.zeros((batch, 1, size, size))
    known[..., : size // 2] = 1
    return known


def slowly_seen(nearness, generator):
    """`seen_from_beside` before its smoothing, pixel by pixel, from the definition."""
    count, height, width = nearness.shape

    def uniform(low, high):
        return (low + (high - low) * torch.rand((count, 1, 1), generator=generator)).flatten().tolist()

    roll, scale, heading = uniform(-LARGEST_ROLL, LARGEST_ROLL), uniform(0.8, 1.25), uniform(0, 2 * math.pi)
    reach, right, low = uniform(0, 1), uniform(-1, 1), uniform(-1, 1)
    seen = torch.zeros((count, height, width), dtype=torch.bool)
    for k in range(count):
        cells: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
        for i in range(height):
            for j in range(width):
                x, y = 2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1
                near = float(nearness[k, i, j])
                shift = LARGEST_SHIFT * reach[k] * (near - 0.5)
                c, s = math.cos(roll[k]), math.sin(roll[k])
                u = scale[k] * (c * x - s * y) + math.cos(heading[k]) * shift + LARGEST_SHIFT * right[k]
                v = scale[k] * (s * x + c * y) + math.sin(heading[k]) * shift + 0.6 * LARGEST_SHIFT * low[k]
                column, row = (math.floor((p + 1) / 2 * (n // CELL)) for p, n in ((u, width), (v, height)))
                if 0 <= column < width // CELL and 0 <= row < height // CELL:
                    cells.setdefault((row, column), []).append((near, i, j))
        for inside in cells.values():
            nearest = max(near for near, _, _ in inside)
            for near, i, j in inside:
                seen[k, i, j] = near >= nearest - SHARPEST
    return seen


def test_what_a_camera_beside_sees_is_as_in_a_slow_reference():
    inverse = torch.full((6, 1, 24, 32), -1.0)
    inverse[..., 8:16, 10:20] = 0.9
    slow = slowly_seen((inverse[:, 0] + 1) / 2, torch.Generator().manual_seed(3))
    got = seen_from_beside(inverse, torch.Generator().manual_seed(3))[:, 0] > 0.5
    padded = torch.nn.functional.avg_pool2d(slow[:, None].float(), 5, 1, 2, count_include_pad=False)[:, 0]
    assert (got != (padded > 0.5)).float().mean() < 2e-3  # float32 against float64 at the borders of cells
    assert 0.03 < (~got).float().mean() < 0.7


def test_things_hide_what_lies_behind_them_and_not_themselves():
    ground, thing = torch.full((64, 1, 48, 48), -1.0), torch.full((64, 1, 48, 48), 1.0)
    square = (..., slice(16, 32), slice(18, 30))
    both = ground.clone()
    both[square] = 1.0
    with_thing, bare, near = (seen_from_beside(x, torch.Generator().manual_seed(1)) for x in (both, ground, thing))
    inner = (..., slice(20, 28), slice(22, 26))  # whose neighbours, which smooth it, are the thing's
    assert torch.equal(with_thing[inner], near[inner])
    outside = torch.ones_like(bare)
    outside[..., 14:34, 16:32] = 0
    assert ((with_thing - bare) * outside).max() <= 0
    assert ((with_thing - bare) * outside).min() < 0


def test_hiding_follows_its_generator():
    inverse = view()[1] - 1.5
    first, again, other = (seen_from_beside(inverse, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.unique().tolist()) <= {0.0, 1.0}


def test_the_context_shows_the_known_part_over_a_fill(completing):
    rgbd, known = pack(*view()), left_known()
    context = completing.context(rgbd, known)
    assert torch.equal(context[:, :1], known_latents(known, completing.reduction))
    torch.testing.assert_close(context[:, 1:], completing.encode(push_pull(rgbd, known)))
    hidden = torch.where(known > 0.5, rgbd, -rgbd)
    assert torch.equal(filled(rgbd, known), filled(hidden, known))
    assert torch.equal(completing.context(hidden, known), context)


def test_a_model_that_cannot_complete_has_no_context(toy):
    assert not toy.completes
    assert toy.context(pack(*view()), left_known()) is None
    noisy = torch.randn((2, 4, 8, 8))
    assert toy.joined(noisy) is noisy


def test_a_widened_unet_predicts_as_before(toy):
    noisy, timesteps = torch.randn((2, 4, 8, 8)), torch.tensor([10, 700])
    text = toy.encode_prompt(["a ball", "a box"])
    before = toy.predict(noisy, timesteps, text)
    widened(toy.unet)
    assert toy.completes
    assert toy.unet.config.in_channels == 9
    torch.testing.assert_close(toy.predict(noisy, timesteps, text), before)
    context = toy.context(pack(*view()), left_known())
    torch.testing.assert_close(toy.predict(noisy, timesteps, text, context), before)


def test_a_completing_model_is_read_as_it_was_written(completing, completing_folder):
    loaded = load_ldm3d(str(completing_folder), "cpu")
    noisy, timesteps, text = torch.randn((1, 4, 8, 8)), torch.tensor([300]), completing.encode_prompt(["a ball"])
    context = completing.context(pack(*view(1)), left_known(1))
    assert torch.equal(
        loaded.predict(noisy, timesteps, text, context), completing.predict(noisy, timesteps, text, context)
    )
    assert not torch.allclose(loaded.predict(noisy, timesteps, text), loaded.predict(noisy, timesteps, text, context))


def test_other_widths_are_refused(completing):
    config = dataclasses.make_dataclass("C", ["in_channels", "out_channels"])
    with pytest.raises(BadSettings, match="takes 9"):
        check_layout(completing.vae.config, config(8, 4), "it")


def test_clips_are_denoised_without_a_picture(completing):
    adapter = build_motion_adapter(completing.unet, 4).eval()  # a new adapter changes nothing
    video = motion_unet(completing.unet, adapter)
    noisy, timesteps = torch.randn((1, 3, 4, 8, 8)), torch.tensor([400])
    text = completing.encode_prompt(["a ball"])
    got = predict_clip(video, noisy, timesteps, text)[0]
    want = completing.predict(noisy[0], timesteps.expand(3), text.expand(3, -1, -1))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def one_image(model, monkeypatch, goal):
    """A network that expects the latents `goal`, from noise alone and from any noised picture; what it is asked."""
    asked = []

    def predict(noisy, timesteps, _text, context=None):
        asked.append((int(timesteps[0]), context))
        a = model.alphas_cumprod[timesteps][:, None, None, None]
        return a.sqrt() * (noisy - a.sqrt() * goal) / (1 - a).sqrt() - (1 - a).sqrt() * goal

    monkeypatch.setattr(model, "predict", predict)
    return asked


def guessed(model, rgbd, known, seed=1):
    with torch.no_grad():
        text = model.encode_prompt(["a scene"]).expand(len(rgbd), -1, -1)
    return expected(model, rgbd, known, text, torch.Generator().manual_seed(seed))


def test_the_unknown_part_becomes_what_is_expected_there(completing, monkeypatch):
    """The mean of what the model says of the picture and of its mirror image, shifted to meet the known part."""
    rgbd, known = pack(*view(1)), left_known(1)
    with torch.no_grad():
        goal = completing.encode(pack(*view(1)) * 0.5)
        says = completing.decode(goal)
    mean = (says + says.flip(-1)) / 2
    want = (mean + push_pull((rgbd - mean) * known, known)).clamp(-1, 1)
    asked = one_image(completing, monkeypatch, goal)
    result = guessed(completing, rgbd, known)
    assert torch.equal(result[..., :16], rgbd[..., :16])
    torch.testing.assert_close(result[..., 16:], want[..., 16:], atol=1e-4, rtol=1e-3)
    shown = [completing.context(rgbd, known)] * 2 + [completing.context(rgbd.flip(-1), known.flip(-1))] * 2
    assert [step for step, _ in asked] == [999] * 4
    assert all(torch.equal(got, context) for (_, got), context in zip(asked, shown, strict=True))


def test_what_is_expected_meets_the_known_part_without_a_seam(completing, monkeypatch):
    """A guess that is too bright all over is as bright as the known part where they meet."""
    rgbd, known = torch.full((1, 4, 32, 32), -0.5), left_known(1)
    one_image(completing, monkeypatch, torch.zeros((1, 4, 8, 8)))
    monkeypatch.setattr(completing, "decode", lambda _: torch.full((1, 4, 32, 32), 0.3))
    torch.testing.assert_close(guessed(completing, rgbd, known), rgbd)


def test_an_expectation_follows_its_generator_and_needs_a_model_that_completes(completing, toy):
    rgbd, known = pack(*view()), left_known()
    assert torch.equal(guessed(completing, rgbd, known), guessed(completing, rgbd, known))
    assert not torch.equal(guessed(completing, rgbd, known), guessed(completing, rgbd, known, seed=2))
    with pytest.raises(ValueError, match="not learnt to complete"):
        guessed(toy, rgbd, known)


def test_painting_shows_the_known_part_all_the_time(completing, monkeypatch):
    rgbd, known = pack(*view(1)), left_known(1)
    with torch.no_grad():
        empty, text = completing.encode_prompt(["", "a scene"]).chunk(2)
        asked = one_image(completing, monkeypatch, completing.encode(rgbd) * 0.5)
    painted = inpaint(completing, rgbd, known, text, empty, 0.5, 3, 1.0, torch.Generator().manual_seed(1))
    assert torch.equal(painted[..., :16], rgbd[..., :16])
    assert not torch.equal(painted[..., 16:], rgbd[..., 16:])
    assert len(asked) == 3
    assert all(torch.equal(context, completing.context(rgbd, known)) for _, context in asked)


def test_rows_without_a_picture_keep_their_timesteps_and_weights():
    context = torch.zeros((400, 5, 4, 4))
    context[200:, :1, :, :2] = 1
    timesteps = torch.arange(400)
    drawn = completion_timesteps(timesteps, context, 1000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:200], timesteps[:200])
    assert 0.2 < (drawn[200:] == 999).float().mean() < 0.4
    weight = hidden_weight(context)
    assert torch.equal(weight[:200], torch.ones_like(weight[:200]))
    torch.testing.assert_close(weight.mean(dim=(1, 2, 3)), torch.ones(400))
    torch.testing.assert_close(weight[300, 0, 0, 3] / weight[300, 0, 0, 0], torch.tensor(10.0))
    given = sometimes(torch.ones((400, 5, 4, 4)), torch.Generator().manual_seed(0)).flatten(1)
    assert set(given.sum(dim=1).tolist()) == {0.0, 80.0}
    assert 0.4 < given[:, 0].mean() < 0.6


def test_the_loss_without_a_context_is_the_plain_one(completing):
    latents, ids = torch.randn((4, 4, 8, 8)), completing.token_ids(["a ball"] * 4)
    none, blank = (
        denoising_loss(completing, latents, ids, torch.Generator().manual_seed(2), context)
        for context in (None, torch.zeros((4, 5, 8, 8)))
    )
    assert float(none) > 0
    # a blank context draws one number more a row, of which none decides anything
    generator = torch.Generator().manual_seed(2)
    timesteps = torch.randint(1000, (4,), generator=generator)
    torch.rand(4, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    a = completing.alphas_cumprod[timesteps][:, None, None, None]
    target = a.sqrt() * noise - (1 - a).sqrt() * latents
    text = completing.text_encoder(ids).last_hidden_state
    predicted = completing.predict(completing.noisy(latents, noise, timesteps), timesteps, text)
    torch.testing.assert_close(blank, (predicted - target).square().mean())


def test_training_to_complete_teaches_what_is_hidden(completing):
    """One picture whose right half follows from the left: the expected latents come close to it."""
    model = completing
    rgbd = pack(torch.full((1, 3, 32, 32), 0.7), torch.ones((1, 1, 32, 32)))
    rgbd[:, :, 8:24] = -0.5
    known = left_known(1)
    with torch.no_grad():
        latents, context = model.encode(rgbd), model.context(rgbd, known)
    parameters = [p.requires_grad_(True) for p in model.unet.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=3e-3)
    ids, generator = model.token_ids(["a scene"] * 8), torch.Generator().manual_seed(0)
    text = model.encode_prompt(["a scene"]).detach()
    noise = torch.randn(latents.shape, generator=generator)

    def error():
        return float((expected_latents(model, noise, text, context) - latents)[..., 4:].square().mean())

    before = error()
    eight = (latents.expand(8, -1, -1, -1), context.expand(8, -1, -1, -1))
    for _ in range(40):
        optimiser.zero_grad()
        denoising_loss(model, eight[0], ids, generator, eight[1]).backward()
        optimiser.step()
    assert error() < 0.3 * before
    assert model.unet.conv_in.weight.grad[:, 4:].abs().max() > 0


def test_scenes_in_the_buffer_come_with_a_part_hidden(completing):
    scenes = SceneBuffer(8, 32, 8, torch.device("cpu"), seed=0)
    scenes.renew()
    buffer = LatentBuffer(scenes, completing, torch.Generator().manual_seed(0))
    whole, _ = buffer.draw(8, False, torch.Generator().manual_seed(0))
    half, _ = buffer.draw(8, True, torch.Generator().manual_seed(0))
    assert whole.shape == (8, 9, 8, 8)
    assert half.shape == (8, 9, 4, 4)
    assert set(whole[:, 4].unique().tolist()) == {0.0, 1.0}
    assert set(half[:, 4].unique().tolist()) <= {0.0, 1.0}
    assert math.isfinite(held_out_loss(completing, scenes.packed(torch.arange(8)), [""] * 8, 0))


def test_a_plain_model_learns_to_complete_when_it_is_trained_on(tmp_path, monkeypatch):
    """`--start` takes a model of before; the result completes, and says so in its layout."""
    start = tmp_path / "start"
    build_toy().save(start)
    (start / "pretrain.json").write_text("{}")
    monkeypatch.setattr(pretrain, "TOY", dataclasses.replace(TOY, completes=True))
    arguments = ["--start", str(start), "--vae-share", "0", "--motion-share", "0", "--judge-share", "0"]
    arguments += ["--seconds", "3", "--device", "cpu", "--toy", "--size", "32", "--scenes", "8", "--chunk", "8"]
    assert pretrain.main([*arguments, "--batch", "4", "--snapshot-seconds", "0", "--out", str(tmp_path / "out")]) == 0
    model = load_ldm3d(str(tmp_path / "out"), "cpu")
    assert model.completes
    assert model.unet.conv_in.weight[:, 4:].abs().max() > 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_finetuning_teaches_completion_too(run, settings, completing_folder, method):
    config = settings.model_copy(
        update={"prior": settings.prior.model_copy(update={"model": str(completing_folder), "finetune": method})}
    )
    training = DreamBooth(run, config, Reporter())
    latents, _, context = training.crops(1)
    assert context.shape == (2, 5, *latents.shape[2:])
    again = DreamBooth(run, config, Reporter()).crops(1)[2]
    assert torch.equal(context, again), "a run that was killed hides the same parts"
    training.train()
    model, record = load_finetuned(run.prior, "cpu")
    assert model.completes
    assert record["method"] == method
    assert math.isfinite(json.loads((run.prior / "prior.json").read_text())["denoising_loss_after"])


def test_distillation_shows_no_picture(tmp_path, completing_folder, monkeypatch):
    """Shown the known part, it made unseen places worse (decision 12)."""
    record = {"method": "none", "prompt": "a scene", "resolution": 32, "rank": 4, "text": False}
    write_record(tmp_path / "prior", {**record, "base": str(completing_folder)})
    guidance, seen = RgbdGuidance(tmp_path / "prior", SdsConfig(guidance=1.0), "cpu"), []
    unet = guidance.model.unet.forward
    monkeypatch.setattr(guidance.model.unet, "forward", lambda x, *a, **k: seen.append(x) or unet(x, *a, **k))
    rgb, depth = view(1)
    loss, _ = guidance.loss(rgb.requires_grad_(True), depth, 1 - left_known(1), 0.5, torch.Generator().manual_seed(1))
    loss.backward()
    assert seen[0].shape[1] == 9
    assert seen[0][:, 4:].eq(0).all()
    assert rgb.grad.abs().max() > 0
