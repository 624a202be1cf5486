from typing import Any

import pytest
from optimise_scenes import FakeGuidance

from dpdy_core.optimise import loop


@pytest.fixture
def guidance(monkeypatch: pytest.MonkeyPatch) -> list[FakeGuidance]:
    made: list[FakeGuidance] = []

    def make(*arguments: Any) -> FakeGuidance:
        made.append(FakeGuidance(*arguments))
        return made[-1]

    monkeypatch.setattr(loop, "RgbdGuidance", make)
    return made
