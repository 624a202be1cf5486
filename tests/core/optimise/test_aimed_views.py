"""Cameras that circle the scene, and the choice among them, against closed forms and a slow choice."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optimise_scenes import tiny_config, write_capture

from dpdy_core.ingest.clip import Clip, load_clip
from dpdy_core.optimise import aimed_views
from dpdy_core.optimise.aimed_views import AimedViews
from dpdy_core.optimise.novel_views import LEAST_OBSERVED, LEAST_TURN, NovelViews
from dpdy_core.render.visibility import TrainingViews
from dpdy_core.scene.contraction import find_bounds
from dpdy_core.scene.scene import Scene
from dpdy_core.section import Ramp, constant

SIZE = 16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    clip = load_clip(write_capture(tmp_path).capture, "train", 24)
    assert clip is not None
    return clip


def views_of(clip: Clip) -> tuple[NovelViews, TrainingViews]:
    config, bounds = tiny_config().scene, find_bounds(clip)
    scene = Scene(config.fields, config.sampling, bounds, len(clip), "torch", seeded())
    return NovelViews(clip, bounds, SIZE), TrainingViews(clip, scene)


@pytest.mark.parametrize("degrees", [10.0, 35.0, 90.0])
def test_around_one_camera_they_stand_at_the_given_angle_and_distance(clip: Clip, degrees: float) -> None:
    one = replace(clip.cameras, camera_to_world=clip.cameras.camera_to_world[2:3].expand(len(clip), 3, 4))
    novel, _ = views_of(replace(clip, cameras=one))
    cameras, _ = novel.orbiting(500, degrees, seeded())
    outward = cameras.centres - novel.targets[0]
    torch.testing.assert_close(outward.norm(dim=-1), novel.reach[0].expand(500), rtol=1e-4, atol=0)
    before = (novel.centres[0] - novel.targets[0]) / novel.reach[0]
    angle = torch.rad2deg(torch.acos((outward @ before) / outward.norm(dim=-1)))
    assert degrees * LEAST_TURN - 0.1 < float(angle.min()) < degrees * (LEAST_TURN + 0.02)
    assert degrees * 0.98 < float(angle.max()) < degrees + 0.1
    towards = -cameras.camera_to_world[:, :, 2]
    torch.testing.assert_close(towards, -outward / outward.norm(dim=-1, keepdim=True), rtol=0, atol=1e-4)
    sideways = outward - (outward @ before)[:, None] * before
    assert float(sideways.mean(dim=0).norm()) < 0.1 * float(sideways.norm(dim=-1).mean())  # to all sides alike


def test_the_angle_may_be_a_tensor(clip: Clip) -> None:
    novel, _ = views_of(clip)
    (one, times), (other, same) = (novel.orbiting(5, d, seeded()) for d in (20.0, torch.tensor(20.0)))
    assert torch.equal(one.camera_to_world, other.camera_to_world)
    assert torch.equal(times, same)


@pytest.mark.parametrize("least", [LEAST_OBSERVED, 0.7, 2.0])
def test_the_choice_is_that_of_a_slow_search(clip: Clip, monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    """Most unseen pixels among those that see enough; where none does (2.0: never), the one that sees most."""
    monkeypatch.setattr(aimed_views, "LEAST_OBSERVED", least)
    novel, views = views_of(clip)
    aimed = AimedViews(novel, views, 6, constant(60))
    chosen, times = aimed.draw(7, 1.0, seeded(3))
    candidates, moments = novel.orbiting(42, 60.0, seeded(3))
    for view in range(7):
        best, most = -1, -1.0
        for k in range(6 * view, 6 * view + 6):
            observed = float(aimed.space.share(candidates[k])[0])
            unseen = float(aimed.coverage.unseen(candidates[k], moments[k : k + 1]).mean())
            score = 10 + unseen if observed >= least else observed
            if score > most:
                best, most = k, score
        torch.testing.assert_close(chosen.camera_to_world[view], candidates.camera_to_world[best])
        assert times[view] == moments[best]


def test_more_candidates_show_more_of_the_unseen_and_still_what_was_filmed(clip: Clip) -> None:
    novel, views = views_of(clip)
    unseen, observed = [], []
    for candidates in (1, 8):
        aimed = AimedViews(novel, views, candidates, constant(35))
        cameras, times = aimed.draw(50, 1.0, seeded())
        unseen.append(float(aimed.unseen(cameras, times).mean()))
        observed.append(float((aimed.space.share(cameras) >= LEAST_OBSERVED).float().mean()))
    plain, times = novel.draw(50, 1.0, seeded())
    assert unseen[1] > 1.5 * unseen[0]
    assert unseen[1] > 1.5 * float(aimed.unseen(plain, times).mean())
    assert observed[1] > 0.9


def test_they_go_further_out_as_training_goes_on(clip: Clip) -> None:
    novel, views = views_of(clip)
    aimed = AimedViews(novel, views, 2, Ramp(start=5, end=40))
    distance = [
        float(torch.cdist(aimed.draw(40, progress, seeded())[0].centres, novel.centres).min(dim=1).values.mean())
        for progress in (0.0, 1.0)
    ]
    assert distance[1] > 2 * distance[0]
