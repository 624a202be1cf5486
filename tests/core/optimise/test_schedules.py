"""Schedules, novel views and the weighted sum."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimise_scenes import write_capture

from dpdy_core.config import FieldsConfig, LossConfig
from dpdy_core.ingest.clip import load_clip
from dpdy_core.optimise.novel_views import NovelViews
from dpdy_core.optimise.objective import Term, free_terms, observed_terms, weighted_sum
from dpdy_core.optimise.schedule import camera_rate_factor, first_step, learning_rate_factor, proposal_anneal
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.section import Ramp


def test_learning_rate_warms_up_and_decays_to_its_final_share() -> None:
    assert learning_rate_factor(0.0, 0.05) < 0.1
    factors = [learning_rate_factor(p, 0.05) for p in (0.03, 0.2, 0.5, 0.9, 1.0)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.05)


def test_cameras_wait_for_the_scene() -> None:
    assert camera_rate_factor(0.0) == camera_rate_factor(0.1) == 0
    assert 0 < camera_rate_factor(0.15) < 1
    assert camera_rate_factor(0.2) == camera_rate_factor(1.0) == 1


def test_anneal_ends_at_one() -> None:
    assert proposal_anneal(0.0) == 0
    assert proposal_anneal(0.01) < proposal_anneal(0.1) < 1
    assert proposal_anneal(0.25) == proposal_anneal(1.0) == 1


@given(st.floats(0, 1), st.integers(0, 300))
def test_the_first_step_of_a_prior_is_where_the_loop_would_begin_it(begin: float, steps: int) -> None:
    step = first_step(begin, steps)
    assert step == steps or step / steps >= begin
    assert step == 0 or (step - 1) / steps < begin


def test_the_weighted_sum_follows_the_ramps() -> None:
    value = torch.tensor(2.0)
    terms = [
        Term("rising", Ramp(start=0.0, end=1.0), lambda x: x * value),
        Term("constant", Ramp(start=3.0, end=3.0), lambda x: x + value),
    ]
    total, values = weighted_sum(terms, torch.tensor(1.0), 0.25)
    assert float(total) == pytest.approx(0.25 * 2 + 3 * 3)
    assert {name: float(v) for name, v in values.items()} == {"rising": 2.0, "constant": 3.0}


def test_terms_are_those_that_the_clip_and_the_settings_can_have() -> None:
    losses = LossConfig()

    both, one, learned = FieldsConfig(), FieldsConfig(split=False), FieldsConfig(blend="learned")

    def names(fields: FieldsConfig, depth: bool = True, motion: bool = True) -> set[str]:
        return {t.name for t in observed_terms(losses, fields, depth, motion)}

    assert names(both) == {"colour", "depth", "motion_mask", "static"}
    assert names(one) == {"colour", "depth"}
    assert names(both, depth=False, motion=False) == {"colour"}
    assert names(learned) == names(both) | {"dynamic"}
    assert {t.name for t in free_terms(losses, one)} == {"distortion", "interlevel"}
    off = LossConfig.model_validate({"w_sparsity": 0, "w_entropy": 0, "depth_loss": "none"})
    assert {t.name for t in free_terms(off, both)} == {"distortion", "interlevel", "shadow"}
    assert {t.name for t in free_terms(off, FieldsConfig(shadows=False))} == {"distortion", "interlevel"}
    assert "depth" not in {t.name for t in observed_terms(off, both, True, True)}


def test_novel_views_look_at_the_scene_and_go_further_out_with_time(tmp_path: Path) -> None:
    clip = load_clip(write_capture(tmp_path).capture, "train", 24)
    assert clip is not None
    novel = NovelViews(clip, find_bounds(clip), 16)
    distances = []
    for progress in (0.0, 1.0):
        cameras, times = novel.draw(64, progress, torch.Generator().manual_seed(0))
        assert set(times.tolist()) <= set(clip.times.tolist())
        rotation = cameras.camera_to_world[:, :, :3]
        identity = torch.eye(3).expand(64, 3, 3)
        torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, identity, atol=1e-5, rtol=0)
        target = torch.tensor([0.0, 0.0, 0.0]) - cameras.centres
        ahead = (target * -rotation[:, :, 2]).sum(-1) / target.norm(dim=-1)
        assert float(ahead.min()) > 0.9
        distances.append(float(torch.cdist(cameras.centres, clip.cameras.centres).min(dim=1).values.mean()))
    assert distances[1] > 2 * distances[0]
    again, _ = novel.draw(64, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(again.centres, cameras.centres)


def test_novel_views_of_a_frames_shape_see_as_much_as_a_frame(tmp_path: Path) -> None:
    clip = load_clip(write_capture(tmp_path).capture, "train", 24)
    assert clip is not None
    assert (clip.cameras.width, clip.cameras.height) == (24, 18)
    frame = float(clip.cameras.focal[0, 1])
    for width, height, focal in ((48, 36, 2 * frame), (16, 16, 16 / 18 * frame), (48, 32, 2 * frame)):
        cameras, _ = NovelViews(clip, find_bounds(clip), width, height).draw(2, 0.5, torch.Generator().manual_seed(0))
        assert (cameras.width, cameras.height) == (width, height)
        torch.testing.assert_close(cameras.focal, torch.full((2, 2), focal))
        assert cameras.principal.tolist() == [[width / 2, height / 2]] * 2
