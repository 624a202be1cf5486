"""`dpdy ablate` with the real engine at its smallest: shared stages, a row that fails, tables, resuming."""

import json
from pathlib import Path

import cv2
import pytest

from tests.e2e.engine import TINY, dpdy, here, set_options

SMALLEST = TINY | {"scene.steps": 4, "scene.max_size": 32}


@pytest.mark.slow
def test_rows_share_stages_and_a_failed_row_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, out = tmp_path / "capture", tmp_path / "out"
    assert here("synth", capture, "--frames", 8, "--size", "32x24") == 0
    # a prior that is not there: only the row that uses one asks for it
    settings = set_options(SMALLEST | {"prior.model": str(tmp_path / "nowhere")})
    arguments = ("ablate", capture, "--out", out, "--preset", "smoke", "--device", "cpu", "--seeds", "0", *settings)
    first = dpdy(*arguments, "--rows", "full,no_prior", "--jobs", 2)
    assert first.stderr.count("shared depth of full, no_prior: done") == 1
    full, no_prior = (row["runs"][0] for row in json.loads((out / "ablation.json").read_text())["rows"])
    assert full["status"] == "failed"
    assert "nowhere" in full["reason"]
    assert no_prior["status"] == "done"
    assert no_prior["mean"]["psnr"] > 5
    assert no_prior["mean"]["unseen"]["abs_rel"] > 0
    assert no_prior["mean"]["static"]["flicker"] is not None
    assert no_prior["baselines"]["all_times_warp"]["psnr"] > no_prior["baselines"]["nearest_frame"]["psnr"]
    assert no_prior["seconds"]["scene"] > 0
    assert first.stdout == (out / "ablation.md").read_text()
    assert full["reason"] in first.stdout
    assert cv2.imread(str(out / "strip.png")).shape[1] == 2 * (192 + 4)  # truth and the row that is done

    capsys.readouterr()
    assert here(*arguments, "--rows", "no_prior", "--json") == 0
    again = capsys.readouterr()
    assert again.err.splitlines() == ["no_prior seed 0: already done"]
    assert json.loads(again.out)["rows"][0]["runs"] == [no_prior]

    assert here("ablate", out, out, "--combine", "--out", tmp_path / "both") == 0
    both = json.loads((tmp_path / "both" / "ablation.json").read_text())
    assert both["rows"][0]["runs"][0]["mean"]["unseen"] == no_prior["mean"]["unseen"]
    assert here(*arguments, "--rows", "nonsense") == 2
