"""`dpdy serve` and `dpdy worker`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from api.logs import configure
from api.settings import Settings
from dpdy_core.errors import BadSettings

SETTINGS_HELP = "Variables (also from .env), with defaults:\n\n" + "\n\n".join(
    f"DPDY_{name.upper()}={'' if field.default is None or name == 'engine' else field.default}"
    + (f"  {field.description}" if field.description else "")
    for name, field in Settings.model_fields.items()
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=SETTINGS_HELP)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; default 8000, 0 takes a free one.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the SQLite file and all runs; default dpdy-data.")
    ] = None,
) -> None:
    """Serve API, page and one worker in one process: SQLite and a folder, nothing else.

    Example: dpdy serve --port 8000 --data dpdy-data
    """
    from worker.embedded import serve as serve_embedded  # a worker needs no API

    settings = read_settings(host=host, port=port, data=data)
    configure(settings.log_format, settings.log_level)
    try:
        serve_embedded(settings)
    except OSError as error:
        raise BadSettings(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}", "use another --port"
        ) from error


@app.command(epilog=SETTINGS_HELP)
def worker() -> None:
    """Run one production worker; broker, database and storage come from the environment.

    Example: DPDY_BROKER_URL=redis://localhost DPDY_DATABASE_URL=postgresql://localhost/dpdy dpdy worker
    """
    from worker.celery_app import run_worker  # other commands need no Celery

    settings = read_settings()
    configure(settings.log_format, settings.log_level)
    run_worker(settings)


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, overruled by what is given. Raises BadSettings that names what is wrong."""
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        named = [("DPDY_" + str(e["loc"][0]).upper() + ": " if e["loc"] else "", e["msg"]) for e in error.errors()]
        wrong = "; ".join(name + message for name, message in named)
        raise BadSettings(wrong, "see `dpdy serve --help` for all variables") from error
