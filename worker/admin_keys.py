"""`dpdy admin keys`: make, list and revoke API keys."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from api import keys as api_keys
from api.db.models import DEFAULT_TENANT, SCOPES, ApiKey, now
from api.db.session import make_engine, make_sessions
from api.jobs.stages import timestamp
from dpdy_core.errors import BadInput, BadSettings, DpdyError
from migrations import upgrade
from worker.cli import read_settings

keys = typer.Typer(no_args_is_help=True, add_completion=False)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@keys.callback()
def _keys() -> None:
    """API keys. A key belongs to a tenant, who sees only what was made with keys of the same tenant.

    Example: dpdy admin keys create --tenant lab --name "Ada's laptop"
    """


@keys.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose uploads, jobs and studies it reaches.")] = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar=" | ".join(SCOPES), help="What it may do; write includes read, admin both."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.0, max=36500.0, help="Days until it expires; default never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    Example: dpdy admin keys create --tenant lab --scope read --days 90
    """
    scopes = scope or ["write"]
    if unknown := [word for word in scopes if word not in SCOPES]:
        raise BadSettings(f"there is no scope {unknown[0]!r}", f"use {', '.join(SCOPES)}")
    if not api_keys.TENANT.fullmatch(tenant):
        raise BadSettings(
            f"{tenant!r} is no name of a tenant", "use up to 63 small letters, digits, - and _, the first no sign"
        )
    if len(name) > 200 or not name.isprintable():
        raise BadSettings("the name of the key is too long or holds control characters", "use up to 200 characters")
    with _session() as session:
        row, key = api_keys.create(session, tenant, name, scopes, now() + timedelta(days=days) if days else None)
        document = _document(row)
    if as_json:
        return _write({**document, "key": key})
    sys.stderr.write(f"{row.id} of tenant {tenant}: keep this key, it is not shown again\n")
    typer.echo(key)


@keys.command(name="list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only keys of this tenant.")] = None, as_json: AsJson = False
) -> None:
    """List the keys, also those that were revoked or have expired; of the keys themselves only the beginning.

    Example: dpdy admin keys list
    """
    with _session() as session:
        items = [_document(row) for row in api_keys.listing(session, tenant)]
    if as_json:
        return _write({"items": items})
    table = Table(box=None)
    columns = ("id", "prefix", "tenant", "name", "scopes", "state", "last_used_at")
    for column in columns:
        table.add_column(column, no_wrap=column in ("id", "prefix"))
    for item in items:
        cells = (", ".join(item[c]) if c == "scopes" else item[c] for c in columns)
        table.add_row(*(str(cell) if cell is not None else "" for cell in cells))
    Console(highlight=False, markup=False).print(table)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id or its prefix, as `list` shows them.")],
    as_json: AsJson = False,
) -> None:
    """End a key, from the next request on. What was made with it stays.

    Example: dpdy admin keys revoke key-12ab
    """
    with _session() as session:
        row = api_keys.revoke(session, key)
        if row is None:
            raise BadInput(f"there is no key {key!r}", "`dpdy admin keys list` shows the ids")
        document = _document(row)
    _write(document) if as_json else typer.echo(f"{row.id}  revoked")


@contextmanager
def _session() -> Iterator[Session]:
    """A session on the service's database; the embedded one is made if it is not there yet."""
    database = read_settings().database
    if database.get_backend_name() == "sqlite":
        upgrade(database)
    engine = make_engine(database)
    try:
        with make_sessions(engine).begin() as session:
            yield session
    except (OperationalError, ProgrammingError) as error:
        remedy = "check DPDY_DATABASE_URL, and run `python -m migrations` once"
        raise DpdyError("the database does not answer or was not migrated", remedy) from error
    finally:
        engine.dispose()


def _document(row: ApiKey) -> dict[str, Any]:
    fields = ("id", "prefix", "tenant", "name", "scopes")
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    document = {field: getattr(row, field) for field in fields}
    document |= {field: timestamp(time) if (time := getattr(row, field)) else None for field in times}
    expired = row.expires_at is not None and row.expires_at <= now()
    return document | {"state": "revoked" if row.revoked_at else "expired" if expired else "valid"}


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
