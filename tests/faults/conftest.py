"""Every fault test ends with the invariant checker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Harness
from tests.production import Production, make_production
from worker.invariants import Violation, check


@pytest.fixture
def fleet(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Production]:
    """The production form; its invariants are checked when the test is over and nothing runs any more."""
    production = make_production(postgres_url, redis_url, tmp_path)
    yield production
    assert production.violations() == []


@pytest.fixture
def alone(service: Harness) -> Iterator[Harness]:
    """The service in this process, over SQLite; its invariants are checked when the test is over."""
    yield service
    assert violations(service) == []


def violations(service: Harness) -> list[Violation]:
    return check(service.sessions, service.runner.files, service.settings)
