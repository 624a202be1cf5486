"""The schema's one history, for Postgres and SQLite alike."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection


def alembic_config(url: URL) -> Config:
    """The configuration that `alembic.ini` gives on the command line, for use from Python."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


@cache
def _history() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def is_behind(connection: Connection) -> bool:
    """Whether the database lacks migrations. One that is ahead of us does not: a newer release is being rolled out."""
    present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in _history().walk_revisions()}
    return present != _history().get_current_head() and (present is None or present in known)


def stamp(connection: Connection) -> None:
    """Mark a database as migrated whose tables were made from the models (tests)."""
    MigrationContext.configure(connection).stamp(_history(), "head")


def upgrade(url: URL) -> None:
    """Bring the database to the newest schema; does nothing if it is there."""
    command.upgrade(alembic_config(url), "head")
