"""A run that is killed in the prior and in the scene ends in the same bits as one that is not."""

import json
import shutil
from pathlib import Path

import pytest

from dpdy_core.rundir import RunDir, sha256_file
from tests.e2e.engine import TINY, dpdy, here, run_and_kill, set_options


@pytest.mark.slow
@pytest.mark.fault("F7")
def test_killed_run_equals_uninterrupted_run(tmp_path: Path) -> None:
    """A run that is killed three times equals one that was not interrupted, bit for bit."""
    capture = tmp_path / "capture"
    assert here("synth", capture, "--frames", 12, "--size", "64x48", "--seed", 3) == 0
    settings = TINY | {"scene.refinement.enabled": True, "scene.refinement.sampling_steps": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # a run folder that has not begun: the configuration is written, the first stage has not ended
    dpdy("run", capture, "--out", whole, "--preset", "smoke", "--device", "cpu", *set_options(settings))
    RunDir(killed).root.mkdir()
    shutil.copy(RunDir(whole).config_file, RunDir(killed).config_file)

    run_and_kill(killed, "prior", step=4)
    run_and_kill(killed, "scene", step=10)
    run_and_kill(killed, "scene", step=30)
    dpdy("run", killed)

    expected = json.loads(RunDir(whole).metrics_file.read_text())
    assert json.loads(RunDir(killed).metrics_file.read_text()) == expected
    assert expected["mean"]["psnr"] is not None
    for name in ("renders/stabilised.mp4", "renders/bullet-time.mp4", "prior/pytorch_lora_weights.safetensors"):
        assert sha256_file(killed / name) == sha256_file(whole / name), name
    resumed_at = [
        event["step"]
        for line in RunDir(killed).events_file.read_text().splitlines()
        if (event := json.loads(line)).get("stage") == "scene" and event["event"] == "step"
    ]
    assert resumed_at.count(1) <= 1, "the scene started again from nothing"


@pytest.mark.slow
def test_a_run_refuses_other_settings_and_a_second_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "capture"
    assert here("synth", capture, "--frames", 8, "--size", "48x36") == 0
    run = tmp_path / "run"
    settings = set_options(TINY | {"scene.steps": 4, "prior.steps": 0, "scene.sds.enabled": False})
    dpdy("run", capture, "--out", run, "--preset", "smoke", "--device", "cpu", *settings)
    capsys.readouterr()
    assert here("run", capture, "--out", run, "--preset", "smoke", "--seed", 9, *settings) == 2
    assert "seed" in capsys.readouterr().err
    again = dpdy("run", capture, "--out", run, "--preset", "smoke", "--device", "cpu", *settings)
    assert again.stderr.count("already done") == 8
