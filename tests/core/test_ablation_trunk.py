"""Which rows share the first part of the scene."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dpdy_core.ablation import study
from dpdy_core.ablation.children import Work
from dpdy_core.ablation.plan import make_trials, outcome
from dpdy_core.ablation.rows import ROWS, Row
from dpdy_core.ablation.study import Study
from dpdy_core.ablation.trunk import Trunk, find_trunks
from dpdy_core.optimise.schedule import first_step, prior_begins
from dpdy_core.rundir import RunDir, write_json
from dpdy_core.stages import STAGES, TRUNK

NO_PRIOR = next(row for row in ROWS if row.name == "no_prior")


def trunks(out: Path, rows: list[Row], seeds: tuple[int, ...] = (0,), **settings: Any) -> dict[str, Trunk]:
    trials = make_trials(out, rows, seeds, False, "fast", {"scene.steps": 100, **settings})
    found = find_trunks(out, trials)
    return {f"{t.row.name}-{t.seed}": found[t.folder] for t in trials if t.folder in found}


def test_rows_that_differ_only_in_the_prior_share_it(tmp_path: Path) -> None:
    found = trunks(tmp_path, list(ROWS), (0, 1))
    shared = {name for name, trunk in found.items() if trunk.run == found["full-0"].run}
    priors = ("full", "no_prior", "unfinetuned", "rgb_only", "rgb_prior", "video_sds", "no_sds", "smooth_fill")
    alone = ("no_refinement", "no_refinement_rgb")
    assert shared - {"no_video_sds-0"} == {f"{name}-0" for name in priors + alone}
    assert found["full-1"].run == found["no_prior-1"].run != found["full-0"].run
    assert len({found[f"{name}-0"].run for name in ("full", "one_field", "depth_none", "learned_blend")}) == 4
    assert "colour_only-0" not in found  # no prior begins in it, nor in a row that is like it till then
    assert found["full-0"].step == 50


def test_rows_whose_prior_begins_elsewhere_do_not(tmp_path: Path) -> None:
    early = {"scene.sds.begin": 0.245}
    rows = [Row("full", ""), Row("weak", "", {"scene.sds.weight": 0.1}), Row("early", "", early), NO_PRIOR]
    found = trunks(tmp_path, rows)
    assert found["full-0"] == found["weak-0"] == found["no_prior-0"]
    assert found["early-0"].run != found["full-0"].run
    assert found["early-0"].step == 25
    assert trunks(tmp_path, rows[2:])["no_prior-0"] == found["early-0"]


@pytest.mark.parametrize("begin", [0.0, 1.0])
def test_a_prior_from_the_first_step_or_never_leaves_no_trunk(tmp_path: Path, begin: float) -> None:
    begins = {f"scene.{part}.begin": begin for part in ("sds", "video_sds", "refinement")}
    assert trunks(tmp_path, [Row("full", ""), NO_PRIOR], **begins) == {}


def test_the_size_of_distilled_views_counts_where_rays_come_from_them(tmp_path: Path) -> None:
    rows = [Row("full", ""), Row("large", "", {"scene.sds.resolution": 96})]
    found = trunks(tmp_path, rows)
    assert found["full-0"] == found["large-0"]
    found = trunks(tmp_path, rows, **{"scene.novel_rays": 0.1})
    assert found["full-0"].run != found["large-0"].run


def test_its_settings_use_no_prior_before_its_end(tmp_path: Path) -> None:
    for trunk in trunks(tmp_path, list(ROWS)).values():
        begin = prior_begins(trunk.config.scene)
        assert begin is not None
        assert trunk.step == first_step(begin, trunk.config.scene.steps)


def test_its_seconds_count_in_rows_that_adopted_it_for_this_scene(tmp_path: Path) -> None:
    (trial,) = make_trials(tmp_path, [Row("full", "")], [0], False, "fast", {})
    run = RunDir(trial.folder)
    run.write_config(trial.config, tmp_path, {})
    empty: dict[str, Any] = {"resolution": [1, 1], "views": [], "mean": {}, "baselines": {}, "truth": {}, "notes": []}
    write_json(run.metrics_file, empty)
    for stage in STAGES:
        run.mark_done(stage, run.fingerprint(stage, trial.config, "abc"), input_hash="abc", seconds=1.0)
    assert outcome(trial, {})["seconds"][TRUNK] == 0
    run.mark_done(TRUNK, run.fingerprint("scene", trial.config, "abc"), input_hash="abc", seconds=2.5)
    assert outcome(trial, {})["seconds"] == {**dict.fromkeys(STAGES, 1.0), TRUNK: 2.5}
    run.mark_done(TRUNK, "of other settings", input_hash="abc", seconds=2.5)
    assert outcome(trial, {})["seconds"][TRUNK] == 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What a study starts, in place of it; trunks and rows fail."""
    works: list[Work] = []

    def run_all(work: list[Work], jobs: int, check: Callable[[], None]) -> Iterator[tuple[Work, str | None]]:
        del jobs, check
        for one in work:
            one.prepare()
            works.append(one)
            yield one, f"no {one.until}" if one.until in (TRUNK, "evaluate") else None

    monkeypatch.setattr(study, "run_all", run_all)
    return works


def ablate(out: Path, rows: list[Row]) -> tuple[dict[str, str], list[str]]:
    """The reasons of the rows that failed, and the lines that were said."""
    trials = make_trials(out, rows, [0], False, "fast", {})
    said: list[str] = []
    document = Study(out.parent, out, trials, {"preset": "fast", "settings": {}, "jobs": 1}).run(
        1, lambda: None, said.append
    )
    return {row["name"]: row["runs"][0]["reason"] for row in document["rows"]}, said


ONE_FIELD = Row("one_field", "", {"scene.fields.split": False})


def test_one_that_fails_is_the_failure_of_all_its_rows(tmp_path: Path, started: list[Work]) -> None:
    reasons, said = ablate(tmp_path / "out", [Row("full", ""), NO_PRIOR, ONE_FIELD])
    assert reasons == {"full": "no trunk", "no_prior": "no trunk", "one_field": "no evaluate"}
    assert "shared trunk of full, no_prior: failed: no trunk" in said
    (trunk,) = (work.run for work in started if work.until == TRUNK)
    assert trunk.root.parent == tmp_path / "out" / "shared"
    assert not trunk.read_config()[0].scene.refinement.enabled
    assert [work.run.root.name for work in started if work.until == "evaluate"] == ["one_field-0"]


def test_one_that_a_single_row_would_use_is_not_made(tmp_path: Path, started: list[Work]) -> None:
    ablate(tmp_path / "out", [Row("full", ""), ONE_FIELD])
    assert TRUNK not in [work.until for work in started]


def test_one_that_is_there_is_adopted(tmp_path: Path, started: list[Work], monkeypatch: pytest.MonkeyPatch) -> None:
    adopted: list[tuple[str, Trunk]] = []
    monkeypatch.setattr(Trunk, "is_done", lambda _: True)
    monkeypatch.setattr(study, "adopt_trunk", lambda run, _, trunk: adopted.append((run.root.name, trunk)))
    ablate(tmp_path / "out", [Row("full", ""), NO_PRIOR])
    assert TRUNK not in [work.until for work in started]
    assert [name for name, _ in adopted] == ["full-0", "no_prior-0"]
    assert adopted[0][1] == adopted[1][1]
