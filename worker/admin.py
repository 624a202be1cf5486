"""`dpdy admin`: what an operator does to the service, through its database and storage, with its variables."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from api.db import queries
from api.db.clock import database_now
from api.db.models import Worker
from api.db.session import Sessions, make_engine, make_sessions
from api.jobs.files import make_files
from dpdy_core.errors import BadInput
from worker.admin_keys import keys
from worker.cli import read_settings
from worker.garbage import collect

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
admin = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(admin, name="admin")
admin.add_typer(keys, name="keys")


@app.callback()
def _dpdy() -> None:
    """One command, `admin`, with commands of its own."""


@admin.callback()
def _admin() -> None:
    """For the operator: works on the database and the storage that the DPDY_* variables name, wherever the API is.

    Example: dpdy admin drain --all --wait 600
    """


@admin.command()
def drain(
    worker: Annotated[str | None, typer.Argument(help="Id of a worker; none, without --all: only list them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All workers that are there now.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let them take jobs again.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for the job's end: checkpoint and give it back.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until they are idle.")] = 0,
    json: Json = False,
) -> None:
    """Tell a worker to take no new job: it finishes its own (--now: gives it back). Then it can be stopped.

    A worker that is started later is not drained. Exit code 4: not idle when --wait was over.

    Example: dpdy admin drain --all --wait 600 && docker compose up -d --build worker
    """
    if worker and every:
        raise typer.BadParameter("give a worker or --all, not both")
    settings = read_settings()
    sessions = _sessions(settings.database)
    if worker or every:
        _order(sessions, worker, None if undo else "yield" if now else "finish")
    until = time.monotonic() + wait
    while True:
        rows = _workers(sessions, settings.lease_seconds)
        drained = [row for row in rows if (every or row["id"] == worker) and row["state"] != "lost"]
        busy = [row["id"] for row in drained if row["job"]]
        if undo or not busy or time.monotonic() >= until:
            break
        time.sleep(min(1.0, settings.poll_seconds))
    _print(rows, ("id", "state", "job", "version", "seen_seconds_ago"), json)
    if wait and busy:
        typer.echo(f"error: {', '.join(busy)} still works. Wait longer, or use --now", err=True)
        raise typer.Exit(4)


@admin.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Delete what nobody needs: jobs past DPDY_RETENTION_DAYS, uploads past their time, deletions that broke off,
    and files that no row of the database knows and nobody has touched for an hour.

    Example: dpdy admin gc --dry-run
    """
    settings = read_settings()
    sessions = _sessions(settings.database)
    rows = [
        {"kind": waste.kind, "id": waste.name, "bytes": waste.size, "why": waste.why}
        for waste in collect(sessions, make_files(settings, "admin"), settings, dry_run)
    ]
    _print(rows, ("kind", "id", "bytes", "why"), json)


@admin.command()
def drill(json: Json = False) -> None:
    """Try a safe part of the fault tests on this installation: its database, broker and storage, half a minute.

    It works in a tenant of its own, with an API, workers and a stand-in engine of its own; it changes nothing of other
    tenants, and removes what it made. Where the storage is a folder, run it on a machine that has it.
    Exit code 4: a check failed.

    Example: dpdy admin drill --json > drill.json
    """
    from worker.drill.run import drill as rehearse  # the API takes time to load that the other commands do not need

    settings = read_settings()
    results = []
    for result in rehearse(settings, _sessions(settings.database)):
        typer.echo(f"{result.result:>8}  {result.check}", err=True)
        results.append(asdict(result))
    _print(results, ("check", "fault", "result", "seconds", "detail"), json)
    if failed := [row["check"] for row in results if row["result"] == "failed"]:
        typer.echo(f"error: {', '.join(failed)} failed. See the details above, and docs/reliability.md", err=True)
        raise typer.Exit(4)


def _sessions(database: Any) -> Sessions:
    """The database of the service. Raises BadInput if it does not answer or was not migrated."""
    sessions = make_sessions(make_engine(database))
    try:
        with sessions() as session:
            queries.queued_count(session)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", error)).strip().partition("\n")[0]
        shown = database.render_as_string(hide_password=True)
        raise BadInput(f"the database {shown} cannot be used: {cause}", "set DPDY_DATABASE_URL or DPDY_DATA") from error
    return sessions


def _order(sessions: Sessions, worker: str | None, drain: str | None) -> None:
    told = update(Worker).values(drain=drain).returning(Worker.id)
    with sessions.begin() as session:
        if not session.scalars(told if worker is None else told.where(Worker.id == worker)).all() and worker:
            raise BadInput(f"there is no worker {worker}", "`dpdy admin drain` lists them")


def _workers(sessions: Sessions, silent_seconds: float) -> list[dict[str, Any]]:
    with sessions() as session:
        time, jobs = database_now(session), queries.jobs_of_workers(session)
        workers = queries.all_workers(session)
    rows = []
    for worker in workers:
        job, silent = jobs.get(worker.id), (time - worker.seen_at).total_seconds()
        state = ("draining" if job else "drained") if worker.drain else "busy" if job else "idle"
        state = "lost" if silent > silent_seconds else state
        row = {"id": worker.id, "state": state, "job": job, "drain": worker.drain, "version": worker.version}
        rows.append(row | {"seen_seconds_ago": round(silent, 1)})
    return rows


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], json: bool) -> None:
    console = Console()
    if json:
        console.print_json(data={"items": rows})
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console.print(table)
