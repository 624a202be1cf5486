"""Runs the migrations, on the database given by `alembic_config` or else by the environment's settings."""

from typing import Any

from alembic import context
from sqlalchemy import URL

from api.db.models import Base, UtcDateTime
from api.db.session import make_engine
from api.settings import Settings


def run(url: URL) -> None:
    """Migrate inside one transaction; SQLite cannot alter tables, so there a changed table is copied (batch mode)."""
    engine = make_engine(url)
    with engine.connect() as connection:
        batch = url.get_backend_name() == "sqlite"
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=batch, render_item=_render
        )
        with context.begin_transaction():
            if not batch:  # two processes that migrate at once take turns
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(736179)")
            context.run_migrations()
    engine.dispose()


def _render(kind: str, item: Any, _autogenerate: Any) -> str | bool:
    """Migrations name the database's types, not ours: they must not change when our code does."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


run(context.config.attributes.get("url") or Settings().database)
