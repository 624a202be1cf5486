"""The forecast against what was measured (docs/results.md): within a factor of two."""

import json
from typing import Any

import pytest

from dpdy_core.ingest.forecast import forecast, stage_seconds
from dpdy_core.presets import PRESETS, resolve

DOG = {
    **{"width": 1280, "height": 720, "frames": 122, "fps": 30.0, "has_splits": False, "has_poses": False},
    **{"has_depth": False, "has_motion_masks": False, "splits": {"train": 122, "val": 0, "test": 0}},
}
HAND = DOG | {
    **{"width": 512, "height": 384, "frames": 86, "fps": None, "has_splits": True, "has_poses": True},
    "splits": {"train": 75, "val": 0, "test": 11},
}
DESK = HAND | {
    **{"width": 256, "height": 192, "frames": 50, "has_depth": True, "has_motion_masks": True},
    "splits": {"train": 30, "val": 0, "test": 20},
}


@pytest.mark.parametrize(
    ("capture", "preset", "device", "measured"),
    [
        (DOG, "smoke", "cpu", 220),
        (HAND, "smoke", "cpu", 200),
        (DESK, "fast", "cuda", 3 + 31 + 199 + 28 + 15),
        (HAND, "fast", "cuda", 83 + 50 + 43 + 259 + 35 + 18),
    ],
)
def test_forecast_is_what_was_measured(capture: dict[str, Any], preset: str, device: str, measured: float) -> None:
    assert measured / 2 < forecast(capture)[preset][device]["seconds"] < 2 * measured


def test_memory_is_what_was_measured() -> None:
    costs = forecast(HAND)
    assert costs["fast"]["cuda"]["memory_gib"] == pytest.approx(2.3, rel=0.2)
    assert costs["fast"]["cpu"]["memory_gib"] == pytest.approx(2.5, rel=0.2)
    assert costs["smoke"]["cpu"]["memory_gib"] == pytest.approx(0.9, rel=0.2)


def test_every_preset_has_a_forecast_in_plain_values() -> None:
    costs = forecast(DOG)
    assert costs.keys() == {*PRESETS, "note"}
    assert "estimate" in costs["note"]
    json.dumps(costs, allow_nan=False)


def test_what_is_given_costs_nothing() -> None:
    spent = stage_seconds(DESK, resolve("smoke"), "cpu")
    assert spent["masks"] == spent["cameras"] == spent["depth"] == 0
    assert stage_seconds(DOG, resolve("smoke"), "cpu")["cameras"] > 0


def test_more_frames_cost_more_up_to_the_preset_s_limit() -> None:
    seconds = []
    for frames in (20, 32, 200):
        capture = DOG | {"frames": 32, "splits": {"train": frames, "val": 0, "test": 0}}
        seconds.append(sum(stage_seconds(capture, resolve("smoke"), "cpu").values()))
    assert seconds[0] < seconds[1] == seconds[2]
