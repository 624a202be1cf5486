"""Presets and the settings laid over them."""

import pytest

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadSettings
from dpdy_core.presets import PRESETS, parse_assignments, resolve
from dpdy_core.prior.motion import ANIMATEDIFF


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_complete_config_that_carries_its_name(name: str) -> None:
    config = resolve(name)
    assert config == PRESETS[name]()
    assert config.preset == name
    assert RunConfig.model_validate(config.model_dump()) == config


def test_presets_cost_more_from_smoke_to_paper() -> None:
    steps = [resolve(name).scene.steps for name in ("smoke", "fast", "paper")]
    assert steps == sorted(steps)
    assert len(set(steps)) == 3


def test_paper_distils_images_and_at_a_lower_weight_clips_with_animatediffs_motion_modules() -> None:
    config = resolve("paper")
    sds, video = config.scene.sds, config.scene.video_sds
    assert config.prior.model == "Intel/ldm3d-4c"
    assert config.prior.resolution == 512
    assert config.prior.motion_adapter == ANIMATEDIFF
    assert sds.enabled
    assert video.enabled
    assert 0 < video.weight < sds.weight
    assert video.frames == 16  # the length that AnimateDiff was trained at
    assert not resolve("fast").scene.video_sds.enabled


def test_dotted_and_nested_settings_mean_the_same() -> None:
    dotted = resolve("smoke", {"scene.sds.enabled": False, "seed": 4})
    nested = resolve("smoke", {"scene": {"sds": {"enabled": False}}, "seed": 4})
    assert dotted == nested
    assert not dotted.scene.sds.enabled
    assert dotted.scene.steps == resolve("smoke").scene.steps


def test_a_ramp_can_be_set_to_a_number_or_in_part() -> None:
    assert resolve("smoke", {"scene.losses.w_depth": 0.5}).scene.losses.w_depth.at(0.3) == 0.5
    part = resolve("smoke", {"scene.losses.w_entropy.end": 0.5}).scene.losses.w_entropy
    assert part.end == 0.5
    assert part.start == resolve("smoke").scene.losses.w_entropy.start


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"scene.stepz": 3}, "scene.stepz"),
        ({"nothing.at.all": 3}, "nothing.at.all"),
        ({"scene.steps.deep": 3}, "scene.steps.deep"),
        ({"scene.steps": -1}, "scene.steps"),
        ({"scene.steps": "many"}, "scene.steps"),
        ({"scene": 3}, "scene"),
        ({"render.paths": 3, "seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(BadSettings, match=named) as caught:
        resolve("smoke", settings)
    assert caught.value.remedy


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadSettings) as caught:
        resolve("huge")
    assert "smoke" in caught.value.remedy


def test_assignments_are_json_where_they_can_be() -> None:
    assert parse_assignments(["a=1", "b=true", "c=[1, 2]", "d=some text", "e=", "f=x=y", 'g="1"']) == {
        "a": 1,
        "b": True,
        "c": [1, 2],
        "d": "some text",
        "e": "",
        "f": "x=y",
        "g": "1",
    }


@pytest.mark.parametrize("text", ["scene.steps", "=3", ""])
def test_what_is_no_assignment_is_refused(text: str) -> None:
    with pytest.raises(BadSettings, match="KEY=VALUE"):
        parse_assignments([text])
