from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import URL, inspect, make_url

from api.db.models import Base
from api.db.session import make_engine
from migrations import alembic_config, upgrade


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    return (
        URL.create("sqlite", database=str(tmp_path / "m.sqlite3"))
        if request.param == "sqlite"
        else make_url(request.getfixturevalue("postgres_url"))
    )


def test_one_history_makes_the_models_tables_and_takes_them_away(url: URL) -> None:
    def tables() -> set[str]:
        engine = make_engine(url)
        found = set(inspect(engine).get_table_names())
        engine.dispose()
        return found

    upgrade(url)
    upgrade(url)  # nothing to do
    assert tables() == {*Base.metadata.tables, "alembic_version"}
    command.check(alembic_config(url))  # raises if the models have changed and the migrations have not
    command.downgrade(alembic_config(url), "base")
    assert tables() == {"alembic_version"}
    upgrade(url)


def test_url_with_percent_signs(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "a%20b%%.sqlite3"))
    upgrade(url)
    assert Path(url.database or "").exists()
