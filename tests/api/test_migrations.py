from pathlib import Path
from typing import Any

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


def test_the_version_before_can_work_with_the_newest_tables(url: URL) -> None:
    """What a rolling upgrade needs: the last migration takes nothing away and asks nothing of the old inserts."""

    def columns() -> dict[str, dict[str, Any]]:
        engine = make_engine(url)
        looked = inspect(engine)
        found = {
            f"{table}.{column['name']}": column
            for table in looked.get_table_names()
            for column in looked.get_columns(table)
        }
        engine.dispose()
        return found

    upgrade(url)
    after = columns()
    command.downgrade(alembic_config(url), "-1")
    before = columns()
    tables = {name.partition(".")[0] for name in before}
    assert before.keys() <= after.keys()
    for name, column in after.items():
        if name in before:
            assert str(column["type"]) == str(before[name]["type"]), name
            assert column["nullable"] >= before[name]["nullable"], name
        elif name.partition(".")[0] in tables:
            assert column["nullable"] or column["default"] is not None, name
