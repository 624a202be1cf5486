"""The scene's first part, optimised once for several rows: each ends as if it had run alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from optimise_scenes import FakeGuidance, tiny_config, write_capture
from test_scene_stage import StopAt, assert_same_bits, collect, final_tensors, with_prior

from dpdy_core.ablation.plan import Trial
from dpdy_core.ablation.rows import Row
from dpdy_core.ablation.trunk import Trunk, adopt_trunk, find_trunks, has_passed
from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.config import RunConfig
from dpdy_core.errors import Cancelled
from dpdy_core.optimise.checkpoint import scene_identity
from dpdy_core.optimise.loop import optimise_scene, optimise_trunk
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir
from dpdy_core.stages import TRUNK

pytestmark = pytest.mark.usefixtures("guidance")
STEP = 4  # of 12: the first at which 0.3 of the training is done
FRAMES = {"refine_cameras": True, "exposure": True, "novel_rays": 0.1}
SDS = {"begin": 0.3, "every": 2, "resolution": 16, "weight": 1e-3}


def config(**sds: Any) -> RunConfig:
    return tiny_config(sds=SDS | sds, preview_every=4, **FRAMES)


@pytest.fixture
def start(tmp_path: Path) -> RunDir:
    return with_prior(write_capture(tmp_path / "start"))


def copy(start: RunDir, folder: Path) -> RunDir:
    shutil.copytree(start.root, folder)
    return RunDir(folder)


def trunk_of(out: Path, *configs: RunConfig) -> Trunk:
    """The one trunk of rows with these settings."""
    trials = [Trial(Row(str(k), str(k)), 0, each, out / "runs" / str(k)) for k, each in enumerate(configs)]
    trunks = find_trunks(out, trials)
    assert len(trunks) == len(configs)
    assert len({trunk.run for trunk in trunks.values()}) == 1
    return trunks[trials[0].folder]


def grown(start: RunDir, trunk: Trunk) -> Trunk:
    """`trunk`, optimised with a stop on the way."""
    shutil.copytree(start.capture, trunk.run.capture)
    with pytest.raises(Cancelled):
        optimise_trunk(trunk.run, trunk.config, StopAt(2).reporter)
    assert not trunk.is_done()
    optimise_trunk(trunk.run, trunk.config, Reporter())
    assert not trunk.is_done()  # until the pipeline says so
    trunk.run.mark_done(TRUNK, "abc", input_hash="def", seconds=2.5)
    assert trunk.is_done()
    return trunk


def test_rows_that_share_it_end_with_the_same_bits_as_alone(
    start: RunDir, tmp_path: Path, guidance: list[FakeGuidance]
) -> None:
    rows = {"full": config(), "weak": config(weight=1e-4), "no_prior": config(enabled=False)}
    trunk = grown(start, trunk_of(tmp_path / "out", *rows.values()))
    assert trunk.step == STEP
    assert guidance == []
    ends = {}
    for name, settings in rows.items():
        alone, sharing = (copy(start, tmp_path / kind / name) for kind in ("alone", "sharing"))
        optimise_scene(alone, settings, Reporter())
        adopt_trunk(sharing, settings, trunk)
        begun = newest_checkpoint(sharing.scene, scene_identity(sharing, settings))
        assert begun is not None
        assert begun.step == STEP
        events, reporter = collect()
        optimise_scene(sharing, settings, reporter)
        assert next(event["step"] for event in events if event["event"] == "step") == STEP + 1
        ends[name] = final_tensors(sharing)
        assert_same_bits(final_tensors(alone), ends[name])
    calls = [[call[2] for call in made.calls] for made in guidance]
    assert calls[0] == calls[1] == calls[2] == calls[3]
    assert len({float(end["scene.static.encoder.table"].sum()) for end in ends.values()}) == 3
    last = newest_checkpoint(trunk.run.scene)
    assert last is not None
    assert last.step == STEP  # rows leave it as it is


def test_it_is_adopted_only_by_runs_that_are_not_as_far(start: RunDir, tmp_path: Path) -> None:
    settings = config()
    trunk = grown(start, trunk_of(tmp_path / "out", settings, config(enabled=False)))
    for stop, expected in ((2, STEP), (6, 7)):
        run = copy(start, tmp_path / f"stopped-{stop}")
        with pytest.raises(Cancelled):
            optimise_scene(run, settings, StopAt(stop).reporter)
        assert has_passed(run, settings, STEP) == (stop > STEP)
        adopt_trunk(run, settings, trunk)
        newest = newest_checkpoint(run.scene, scene_identity(run, settings))
        assert newest is not None
        assert newest.step == expected
        assert (run.stage_record(TRUNK) is not None) == (stop < STEP)


def test_it_is_not_adopted_by_a_run_with_other_frames(start: RunDir, tmp_path: Path) -> None:
    trunk = grown(start, trunk_of(tmp_path / "out", config(), config(enabled=False)))
    other = write_capture(tmp_path / "other", frames=5)
    adopt_trunk(other, config(), trunk)
    assert newest_checkpoint(other.scene) is None


def test_a_damaged_one_is_not_adopted(start: RunDir, tmp_path: Path) -> None:
    trunk = grown(start, trunk_of(tmp_path / "out", config(), config(enabled=False)))
    (trunk.run.scene / f"step_{STEP:07d}.safetensors").write_bytes(b"torn")
    run = copy(start, tmp_path / "run")
    adopt_trunk(run, config(), trunk)
    assert newest_checkpoint(run.scene) is None


def test_its_state_is_whole(start: RunDir, tmp_path: Path) -> None:
    trunk = grown(start, trunk_of(tmp_path / "out", config(), config(enabled=False)))
    tensors = final_tensors(trunk.run)
    assert any(name.startswith("adam.") for name in tensors)
    assert torch.isfinite(tensors["scene.static.encoder.table"]).all()
