"""Fixtures of all tests: servers that live for the session, and settings that touch nothing outside the test."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis

from api.settings import Settings
from tests import s3_server as s3
from tests import servers
from tests.fault_table import pytest_runtest_makereport, pytest_sessionfinish  # noqa: F401
from tests.harness import Harness, harness
from tests.production import STANDIN
from tests.s3_server import S3Server

# What tests compute is too small for threads: on two cores, two of them take three times the work of one, most of it
# waiting for each other. Set before torch loads; engines that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("dpdy", deadline=None)
hypothesis.settings.load_profile("dpdy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none shall wait in the end for another: files with slow tests come first."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DPDY_* variable of the developer's shell decides a test."""
    for name in [name for name in os.environ if name.startswith("DPDY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL server."""
    with servers.postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    plain = postgres_server.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a real Redis server."""
    with servers.redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3-compatible server."""
    with s3.s3_server() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in its bucket; this process has the keys."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with the stand-in engine and quick clocks, in a folder of the test."""

    def make(**changes: object) -> Settings:
        values = {
            "data": tmp_path / "data",
            "engine": STANDIN,
            "min_free_bytes": 0,
            "poll_seconds": 0.1,
            "sweep_seconds": 0.3,
            "progress_seconds": 0.1,
            "heartbeat_seconds": 0.3,
            "lease_seconds": 5.0,
            "retry_seconds": 0.0,
            "grace_seconds": 1.5,
        }
        return Settings(_env_file=None, **{**values, **changes})  # type: ignore[call-arg]

    return make


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    """The service over SQLite."""
    with harness(make_settings()) as running:
        yield running
