"""The engine and its sessions, for Postgres and SQLite. A tenant's sessions see and change only what is theirs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from api.db.models import Owned

CONNECTION = {  # a machine that is gone without a word is noticed within 20 s, instead of 15 minutes
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
IDLE_SECONDS = 15  # in a transaction; then the server ends it: a frozen process must not keep its locks from the others
POOL = {"pool_size": 15, "max_overflow": 0}  # connections beyond the size would be opened anew for each burst
ALL_TENANTS = {"all_tenants": True}  # execution options of the few statements that count over everybody


class Sessions:
    """A factory of short sessions: objects stay readable after the commit.

    Those of `of(tenant)` add `tenant = ...` to every statement over a table that is `Owned`, and to what they insert:
    a query that forgets whose rows it asks for cannot be written. Without a tenant (workers, operator) they see all.
    """

    def __init__(self, engine: Engine, tenant: str | None = None, quota: object = None) -> None:
        self._engine = engine
        self._tenant = tenant
        self._quota = quota

    def __call__(self) -> Session:
        info = {} if self._tenant is None else {"tenant": self._tenant, "quota": self._quota}
        return Session(self._engine, expire_on_commit=False, info=info)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session that commits at the end of the block, and rolls back if it raises."""
        with self() as session, session.begin():
            yield session

    def of(self, tenant: str, quota: object = None) -> "Sessions":
        """Those of one tenant; `quota` is checked by `api.quotas`."""
        return Sessions(self._engine, tenant, quota)


@event.listens_for(Session, "do_orm_execute")
def _only_theirs(state: ORMExecuteState) -> None:
    tenant = state.session.info.get("tenant")
    if tenant is not None and not state.execution_options.get("all_tenants"):
        mine = with_loader_criteria(Owned, lambda table: table.tenant == tenant, include_aliases=True)
        state.statement = state.statement.options(mine)


@event.listens_for(Session, "before_flush")
def _make_theirs(session: Session, *_: object) -> None:
    if (tenant := session.info.get("tenant")) is not None:
        for row in session.new:
            if isinstance(row, Owned):
                row.tenant = tenant


def make_engine(url: URL) -> Engine:
    """An engine with the settings that this service relies on. One per process."""
    serialise = partial(json.dumps, allow_nan=False)
    shared: dict[str, Any] = {"json_serializer": serialise, "hide_parameters": True}  # errors are logged
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, **shared, pool_pre_ping=True, **POOL, connect_args=CONNECTION)
        event.listen(engine, "connect", _prepare_postgres)
        return engine
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, **shared, connect_args={"timeout": 20})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def make_sessions(engine: Engine) -> Sessions:
    """Sessions that see everybody's rows."""
    return Sessions(engine)


def _prepare_postgres(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.autocommit = False


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
