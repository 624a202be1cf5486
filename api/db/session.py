"""The engine and its sessions, for Postgres and SQLite."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

Sessions = sessionmaker[Session]


def make_engine(url: URL) -> Engine:
    """An engine with the settings that this service relies on. One per process."""
    serialise = partial(json.dumps, allow_nan=False)
    shared: dict[str, Any] = {"json_serializer": serialise, "hide_parameters": True}  # errors are logged
    if url.get_backend_name() != "sqlite":
        return create_engine(url, **shared, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **shared, connect_args={"timeout": 20})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def make_sessions(engine: Engine) -> Sessions:
    """A factory of short sessions: objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
