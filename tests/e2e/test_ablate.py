"""`dpdy ablate` with the real engine at its smallest: what rows share, a row that fails, tables, resuming."""

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch

from dpdy_core.checkpoint import newest_checkpoint
from dpdy_core.rundir import RunDir
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


@pytest.mark.slow
def test_rows_share_the_scene_until_the_prior_begins(tmp_path: Path) -> None:
    """Stopped within what they share, and gone on with: a row ends with the bits of one that ran alone."""
    capture, out, alone = tmp_path / "capture", tmp_path / "out", tmp_path / "alone"
    assert here("synth", capture, "--frames", 8, "--size", "32x24") == 0
    settings = set_options(TINY | {"prior.steps": 2, "scene.steps": 80, "scene.max_size": 32})
    arguments = (capture, "--preset", "smoke", "--device", "cpu", "--seeds", "0", *settings)
    stop_once_there_is("shared/trunk-*/scene/step_*1.json", out, *arguments, "--rows", "full,no_prior")
    (trunk,) = map(RunDir, (out / "shared").glob("trunk-*"))
    begun = newest_checkpoint(trunk.scene)
    assert begun is not None
    assert 0 < begun.step < 40

    second = dpdy("ablate", "--out", out, *arguments, "--rows", "full,no_prior")
    assert second.stderr.count("shared trunk of full, no_prior: done") == 1
    assert trunk.stage_record("scene") is None
    steps = [e["step"] for e in map(json.loads, trunk.events_file.read_text().splitlines()) if e["event"] == "step"]
    assert steps[-1] == 40
    first = dpdy("ablate", "--out", alone, *arguments, "--rows", "full")
    assert "shared" not in first.stderr
    ends = [newest_checkpoint(folder / "runs" / "full-0" / "scene") for folder in (out, alone)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert all(torch.equal(ends[0].tensors[name], value) for name, value in ends[1].tensors.items())
    for row in json.loads((out / "ablation.json").read_text())["rows"]:
        assert row["runs"][0]["seconds"]["trunk"] > 0
    assert json.loads((alone / "ablation.json").read_text())["rows"][0]["runs"][0]["seconds"]["trunk"] == 0


def stop_once_there_is(pattern: str, out: Path, *arguments: object) -> None:
    """Start an ablation, and stop it once `out` holds what `pattern` says."""
    command = [sys.executable, "-m", "dpdy_core", "ablate", "--out", out, *arguments]
    with subprocess.Popen([str(part) for part in command]) as process:
        while not any(out.glob(pattern)):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait(60) == 5
