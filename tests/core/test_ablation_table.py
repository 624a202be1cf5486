"""The tables of an ablation from numbers that are known."""

from typing import Any

import pytest

from dpdy_core.ablation.rows import EXPECTATIONS, ROWS, Expectation, chosen_rows
from dpdy_core.ablation.table import baselines, combine, judged, markdown
from dpdy_core.errors import BadSettings


def scores(psnr: float, unseen: float) -> dict[str, Any]:
    return {
        "psnr": psnr,
        "ms_ssim": None,
        "unseen": {"psnr": unseen, "abs_rel": psnr / 100},
        "static": {"flicker": 1.5},
    }


def done(seed: int, psnr: float, unseen: float) -> dict[str, Any]:
    return {
        "seed": seed,
        "status": "done",
        "seconds": {"prior": 10.0, "scene": 60.0 + seed, "render": None},
        "mean": scores(psnr, unseen),
        "baselines": {"all_times_warp": scores(22.0, 15.0)},
        "truth": {"static": {"flicker": 0.4}},
    }


def document(shift: float = 0.0, **extra: Any) -> dict[str, Any]:
    """Full gains 1 and 3 dB on no prior in unseen pixels, two seeds."""
    rows = [
        {"name": "full", "label": "full method", "runs": [done(s, 24 + s + shift, 20 + 2 * s + shift) for s in (0, 1)]},
        {"name": "no_prior", "label": "no prior", "runs": [done(s, 24 + shift, 19 + shift) for s in (0, 1)]},
        {"name": "rgb_only", "label": "RGB", "runs": [{"seed": 0, "status": "failed", "reason": "it diverged"}]},
    ]
    return {"captures": ["a"], "preset": "fast", "settings": {}, "jobs": 1, "version": "1", "rows": rows, **extra}


def cells(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_have_means_spreads_and_gaps() -> None:
    text = markdown(document())
    full = cells(text, "full method")
    assert full[:3] == ["full method", "2", "24.50 ± 0.71"]
    assert full[4] == "21.00 ± 1.41"
    assert full[8] == "–"  # MS-SSIM could not be computed
    assert full[-2:] == ["60 ± 1", "70 ± 1"]
    assert cells(text, "all-times warp")[2] == "22.00"
    assert cells(text, "RGB")[1] == "0 (1 failed)"
    assert "rgb_only seed 0 failed: it diverged" in text
    assert "(the true frames: 0.40)" in text
    assert len({line.count("|") for line in text.splitlines()[2:8]}) == 1


def test_the_seconds_of_a_shared_trunk_count_in_the_scenes_and_in_all() -> None:
    shared = document()
    for run in shared["rows"][0]["runs"]:
        run["seconds"]["trunk"] = 30.0
    assert cells(markdown(shared), "full method")[-2:] == ["90 ± 1", "100 ± 1"]
    assert cells(markdown(shared), "no prior")[-2:] == ["60 ± 1", "70 ± 1"]


def test_gains_are_taken_seed_by_seed() -> None:
    gains, holds = judged(document(), Expectation("full", "no_prior", "unseen.psnr", 2.0))  # type: ignore[misc]
    assert (gains, holds) == ([1.0, 3.0], True)
    assert judged(document(), Expectation("full", "no_prior", "unseen.psnr", 2.1))[1] is False  # type: ignore[index]
    worse, holds = judged(document(), Expectation("full", "no_prior", "unseen.abs_rel", lower=True))  # type: ignore[misc]
    assert worse == pytest.approx([0.0, -0.01])
    assert not holds
    assert judged(document(), Expectation("full", "all_times_warp", "psnr", 1.5)) == ([2.0, 3.0], True)
    assert judged(document(), Expectation("full", "rgb_only", "psnr")) is None
    assert judged(document(), Expectation("full", "no_prior", "ms_ssim")) is None


def test_expectations_are_told_with_their_verdict() -> None:
    lines = [line for line in markdown(document()).splitlines() if "full against no prior | unseen.psnr" in line]
    assert lines == ["| full against no prior | unseen.psnr | at least +1 | +2.00 ± 1.41 | yes |"]


def test_captures_are_averaged_seed_by_seed() -> None:
    other = document(shift=2.0, captures=["b"])
    other["rows"][0]["runs"].pop()
    both = combine([document(), other])
    assert both["captures"] == ["a", "b"]
    full, no_prior, failed = both["rows"]
    assert full["runs"][0]["mean"] == {**scores(25.0, 21.0), "unseen": {"psnr": 21.0, "abs_rel": pytest.approx(0.25)}}
    assert full["runs"][1] == {"seed": 1, "status": "failed", "reason": "done on 1 of 2 captures"}
    assert [run["mean"]["psnr"] for run in no_prior["runs"]] == [25.0, 25.0]
    assert failed["runs"][0]["status"] == "failed"
    assert baselines(both)["all_times_warp"]["psnr"] == 22.0
    assert cells(markdown(both), "no prior")[2] == "25.00 ± 0.00"


def test_rows_and_expectations_agree() -> None:
    names = {row.name for row in ROWS}
    assert len(names) == len(ROWS)
    assert {e.better for e in EXPECTATIONS} <= names
    assert {e.worse for e in EXPECTATIONS} <= names | {"all_times_warp"}
    assert [row.name for row in chosen_rows(["no_prior", "full"])] == ["full", "no_prior"]
    with pytest.raises(BadSettings, match="nonsense"):
        chosen_rows(["full", "nonsense"])
