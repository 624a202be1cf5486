"""Which runs an ablation makes, and what they share."""

from pathlib import Path
from typing import Any

import pytest

from dpdy_core.ablation.plan import Trial, adopt, has, is_done, make_trials, outcome, shared_folder
from dpdy_core.ablation.rows import ROWS, Row, chosen_rows
from dpdy_core.errors import BadSettings
from dpdy_core.rundir import RunDir, write_json

TINY: dict[str, Any] = {"scene.steps": 4}


def trials(out: Path, *names: str, seeds: tuple[int, ...] = (0,), every_seed: bool = False) -> list[Trial]:
    return make_trials(out, chosen_rows(names), seeds, every_seed, "smoke", TINY)


def test_repeated_rows_run_with_all_seeds_and_the_others_with_the_first(tmp_path: Path) -> None:
    made = trials(tmp_path, "full", "no_prior", "one_field", seeds=(3, 5))
    expected = [("full", 3), ("no_prior", 3), ("one_field", 3), ("full", 5), ("no_prior", 5)]
    assert [(t.row.name, t.config.seed) for t in made] == expected
    assert len(trials(tmp_path, "full", "one_field", seeds=(3, 5), every_seed=True)) == 4


def test_every_row_is_a_valid_config_that_keeps_the_users_settings(tmp_path: Path) -> None:
    for trial in trials(tmp_path, *(row.name for row in ROWS)):
        assert trial.config.scene.steps == 4
        assert trial.config.render.paths == ()
    own = {t.row.name: t.config for t in trials(tmp_path, *(row.name for row in ROWS))}
    assert not own["no_prior"].scene.sds.enabled
    assert not own["colour_only"].scene.fields.split
    assert own["own_maps"].depth.source == "sweep"


def test_equal_settings_share_a_folder_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    rows = [Row("full", "full"), Row("same", "same", {"scene.steps": 4}), Row("other", "other", {"scene.steps": 5})]
    first, second, third = make_trials(tmp_path, rows, [0], False, "smoke", TINY)
    assert first.folder == second.folder != third.folder
    with pytest.raises(BadSettings, match="nonsense"):
        make_trials(tmp_path, rows, [0], False, "smoke", {"scene.nonsense": 1})


def test_stages_are_shared_as_far_as_settings_agree(tmp_path: Path) -> None:
    made = {t.row.name: t for t in trials(tmp_path, "full", "unfinetuned", "one_field", "own_maps", "no_prior")}

    def shares(stage: str, one: str, other: str) -> bool:
        return shared_folder(tmp_path, made[one].config, stage) == shared_folder(tmp_path, made[other].config, stage)

    assert shares("prior", "full", "one_field")
    assert shares("depth", "full", "unfinetuned")
    assert not shares("prior", "full", "unfinetuned")
    assert shares("prior", "no_prior", "unfinetuned")
    assert not shares("depth", "full", "own_maps")


def test_a_run_adopts_finished_stages_without_touching_the_donor(tmp_path: Path) -> None:
    full, unfinetuned = trials(tmp_path, "full", "unfinetuned")
    donor = RunDir(tmp_path / "donor")
    write_json(donor.capture / "transforms.json", {"made": "once"})
    run = RunDir(full.folder)
    adopt(run, donor, full.config, "depth")
    assert not run.capture.exists()  # the donor has not come so far
    for stage in ("ingest", "masks", "cameras", "depth"):
        donor.mark_done(stage, donor.fingerprint(stage, full.config, "abc"), input_hash="abc", seconds=1.0)
    adopt(run, donor, full.config, "depth")
    assert has(run, full.config, "depth")
    assert not has(run, full.config, "prior")
    write_json(run.transforms_file, {"made": "again"})
    assert "once" in donor.transforms_file.read_text()
    adopt(run, donor, full.config, "depth")
    assert "again" in run.transforms_file.read_text()  # what a run has done itself stays
    other = RunDir(unfinetuned.folder)
    adopt(other, donor, unfinetuned.config, "prior")
    assert not other.capture.exists()


def test_a_run_is_done_only_with_its_own_settings(tmp_path: Path) -> None:
    (trial,) = trials(tmp_path, "full")
    run = RunDir(trial.folder)
    run.mark_done("evaluate", run.fingerprint("evaluate", trial.config, "abc"), input_hash="abc")
    assert is_done(trial)
    (changed,) = make_trials(tmp_path, chosen_rows(["full"]), [0], False, "smoke", {"scene.steps": 9})
    assert changed.folder == trial.folder
    assert not is_done(changed)
    assert outcome(changed, {})["status"] == "pending"
    assert outcome(changed, {changed.folder: "it broke"})["reason"] == "it broke"
