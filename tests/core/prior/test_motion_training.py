"""The motion adapter learns from clips alone, and its scores tell it from the image model."""

import time

import pytest
import torch

from dpdy_core.prior.denoiser import denoising_loss
from dpdy_core.prior.motion import build_motion_adapter
from dpdy_core.prior.motion_training import (
    ClipBuffer,
    animated,
    clip_loss,
    flicker,
    held_out_clip_loss,
    motion_scores,
    sample_motion,
    train_motion_adapter,
)
from dpdy_core.prior.phase import Phase
from dpdy_core.progress import Reporter

FRAMES = 4


@pytest.fixture
def clips(toy):
    buffer = ClipBuffer(toy, 4, FRAMES, 2, "train", seed=0)
    buffer.renew()
    buffer.renew()
    return buffer


def trained(model):
    """An adapter that mixes frames."""
    adapter = build_motion_adapter(model.unet, FRAMES)
    generator = torch.Generator().manual_seed(5)
    for name, value in adapter.named_parameters():
        if "proj_out" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    return adapter.eval().requires_grad_(False)


def test_clip_buffer_replaces_its_oldest_clips(toy, clips):
    assert (clips.count, clips.made) == (4, 4)
    latents, ids = clips.draw(3, False, torch.Generator().manual_seed(0))
    assert latents.shape == (3, FRAMES, 4, 8, 8)
    assert clips.draw(3, True, torch.Generator())[0].shape == (3, FRAMES, 4, 4, 4)
    assert ids.shape == (3, 77)
    assert torch.equal(clips.ids, toy.token_ids(clips.captions))
    before = clips.latents.clone()
    clips.renew()
    assert torch.equal(clips.latents[2:], before[2:])
    assert not torch.equal(clips.latents[:2], before[:2])


def test_an_untrained_adapter_changes_nothing_and_a_trained_one_does(toy, clips):
    generator = torch.Generator().manual_seed(3)
    noisy = torch.randn((2 * FRAMES, 4, 8, 8), generator=generator)
    timesteps = torch.tensor([200, 800]).repeat_interleave(FRAMES)
    text = toy.encode_prompt(clips.captions[:2]).repeat_interleave(FRAMES, dim=0)
    images = toy.predict(noisy, timesteps, text)
    still = animated(toy, build_motion_adapter(toy.unet, FRAMES), FRAMES).predict(noisy, timesteps, text)
    torch.testing.assert_close(still, images, atol=1e-5, rtol=1e-4)
    moving = animated(toy, trained(toy), FRAMES)
    mixed = moving.predict(noisy, timesteps, text)
    assert (mixed - images).abs().mean() > 1e-3
    other = noisy.clone()
    other[FRAMES - 1] += 1  # the last frame of the first clip is seen by its first frame, not by the second clip
    changed = (moving.predict(other, timesteps, text) - mixed).abs().flatten(1).amax(1)
    assert changed[0] > 1e-4
    assert changed[FRAMES:].max() < 1e-5


def test_clip_loss_of_one_frame_is_the_denoising_loss(toy, clips):
    latents = clips.latents[:, 0].float()
    expected = denoising_loss(toy, latents, clips.ids, torch.Generator().manual_seed(1))
    found = clip_loss(toy, latents[:, None], clips.ids, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected)


def test_clip_loss_gives_all_frames_of_a_clip_one_timestep(toy, clips, monkeypatch):
    seen = []
    monkeypatch.setattr(toy, "predict", lambda noisy, timesteps, text: seen.append((timesteps, text)) or noisy)
    clip_loss(toy, clips.latents.float(), clips.ids, torch.Generator().manual_seed(0))
    timesteps, text = seen[0]
    by_clip = timesteps.view(4, FRAMES)
    assert torch.equal(by_clip, by_clip[:, :1].expand(-1, FRAMES))
    assert len(set(by_clip[:, 0].tolist())) > 1
    states = toy.encode_prompt(clips.captions)
    torch.testing.assert_close(text.unflatten(0, (4, FRAMES))[:, 2], states)


def test_training_moves_the_adapter_and_its_average_but_not_the_model(toy, clips):
    toy.unet.to(memory_format=torch.channels_last)  # as the earlier phases leave it
    unet = {name: value.clone() for name, value in toy.unet.state_dict().items()}
    adapter = build_motion_adapter(toy.unet, FRAMES)
    averaged = build_motion_adapter(toy.unet, FRAMES).requires_grad_(False)
    first = {name: value.clone() for name, value in adapter.state_dict().items()}
    snapshots = []
    phase = Phase("motion", time.monotonic() + 1.5, Reporter(), tick=0.2)
    loss = train_motion_adapter(
        toy,
        adapter,
        averaged,
        clips,
        phase,
        torch.Generator().manual_seed(0),
        4,
        1e-3,
        lambda step, value: snapshots.append((step, value)),
    )
    assert snapshots[0][0] == 1
    assert snapshots[-1][1] == loss
    assert all(torch.equal(value, unet[name]) for name, value in toy.unet.state_dict().items())
    for changed in (adapter, averaged):
        state = changed.state_dict()
        assert any(not torch.equal(state[name], first[name]) for name in first)
    assert not any(p.requires_grad for p in adapter.parameters())


def test_gradients_lower_the_loss_of_a_clip(toy, clips):
    adapter = build_motion_adapter(toy.unet, FRAMES)
    model = animated(toy, adapter, FRAMES)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = clip_loss(model, clips.latents[:2].float(), clips.ids[:2], torch.Generator().manual_seed(0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_flicker_is_the_mean_step_between_frames():
    ramp = torch.arange(5.0)[None, :, None, None, None].expand(2, 5, 3, 4, 4) * torch.tensor([1.0, -3.0]).view(
        2, 1, 1, 1, 1
    )
    assert flicker(ramp) == pytest.approx(2)
    assert flicker(ramp[:, :1].expand(-1, 5, -1, -1, -1)) == 0


def test_scores_agree_for_an_untrained_adapter_and_differ_for_a_trained_one(toy, clips):
    prompts = ["a red ball", "a box"]
    scores = motion_scores(toy, build_motion_adapter(toy.unet, FRAMES), clips, prompts, steps=2)
    assert scores["held_out_loss"] == pytest.approx(scores["held_out_loss_without"], abs=1e-4)
    assert scores["flicker"] == pytest.approx(scores["flicker_without"], abs=1e-4)
    assert scores["flicker_of_scenes"] > 0
    assert held_out_clip_loss(toy, clips, 0) == held_out_clip_loss(toy, clips, 0, batch_size=16)
    other = motion_scores(toy, trained(toy), clips, prompts, steps=2)
    assert other["held_out_loss_without"] == scores["held_out_loss_without"]
    assert abs(other["held_out_loss"] - scores["held_out_loss"]) > 1e-3


def test_sampled_clips_have_frames_in_their_place(toy):
    rgb, depth = sample_motion(toy, ["a red ball", "a box"], 3, 2, 3.0, 0)
    assert rgb.shape == (2, 3, 3, 32, 32)
    assert depth.shape == (2, 3, 1, 32, 32)
    every = toy.sample(["a red ball"] * 3 + ["a box"] * 3, 2, 3.0, torch.Generator().manual_seed(0))[0]
    assert torch.equal(rgb.flatten(0, 1), every)
