"""The schema's one history, for Postgres and SQLite alike."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL


def alembic_config(url: URL) -> Config:
    """The configuration that `alembic.ini` gives on the command line, for use from Python."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def upgrade(url: URL) -> None:
    """Bring the database to the newest schema; does nothing if it is there."""
    command.upgrade(alembic_config(url), "head")
