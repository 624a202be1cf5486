"""The settings: immutable, closed, torch-free."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dpdy_core.config import STAGES, RunConfig, SdsConfig
from dpdy_core.section import Ramp, constant

share = st.floats(0, 1)


@given(st.floats(-10, 10), st.floats(-10, 10), share, share, share)
@example(0.0, 1.0, 0.9999999999999999, 1.0, 0.0)
def test_a_ramp_stays_between_its_ends_and_reaches_them(
    start: float, end: float, begin: float, finish: float, progress: float
) -> None:
    begin, finish = sorted((begin, finish))
    ramp = Ramp(start=start, end=end, begin=begin, finish=finish)
    assert min(start, end) - 1e-9 <= ramp.at(progress) <= max(start, end) + 1e-9
    assert ramp.at(0.0) == start
    assert ramp.at(1.0) == (end if begin < 1 else start)


def test_a_ramp_is_linear_between_its_ends() -> None:
    ramp = Ramp(start=2.0, end=6.0, begin=0.2, finish=0.6)
    assert [ramp.at(p) for p in (0.1, 0.2, 0.3, 0.5, 0.6, 0.9)] == pytest.approx([2, 2, 3, 5, 6, 6])


def test_a_ramp_does_not_finish_before_it_begins() -> None:
    with pytest.raises(ValidationError, match="begin must not be after finish"):
        Ramp(start=0.0, end=1.0, begin=0.6, finish=0.2)


def test_a_number_is_a_constant_ramp() -> None:
    assert Ramp.model_validate(0.25) == constant(0.25)
    assert RunConfig.model_validate({"scene": {"losses": {"w_depth": 3}}}).scene.losses.w_depth.at(0.7) == 3


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= sections(field.annotation)
    return found


def test_every_section_is_frozen_and_refuses_unknown_keys() -> None:
    everything = sections(RunConfig)
    assert len(everything) > 10
    for section in everything:
        assert section.model_config["frozen"]
        assert section.model_config["extra"] == "forbid"
    with pytest.raises(ValidationError):
        RunConfig().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate({"scene": {"sds": {"guidance": bad}}})


def test_the_noise_ceiling_must_stay_above_its_floor() -> None:
    with pytest.raises(ValidationError, match="t_max must stay above"):
        RunConfig.model_validate({"scene": {"sds": {"t_min": 0.4, "t_max": {"start": 0.5, "end": 0.3}}}})
    assert SdsConfig(t_min=0.2).t_min == 0.2


def test_every_stage_has_a_section_and_json_gives_the_config_back() -> None:
    config = RunConfig(seed=7)
    assert all(isinstance(getattr(config, stage), BaseModel) for stage in STAGES)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_config_and_presets_load_without_torch() -> None:
    code = "import dpdy_core.presets, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]
