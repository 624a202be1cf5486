"""The `dpdy` command: finds the module that owns a sub-command and loads it only when it is used."""

import importlib
import sys
from typing import Annotated

import typer

from dpdy_core import __version__
from dpdy_core.command import run_command

COMMANDS = {
    "run": ("dpdy_core.cli", "the whole method on a video or capture, into a run folder"),
    "render": ("dpdy_core.cli", "another camera path from a finished run"),
    "eval": ("dpdy_core.cli", "metrics on the capture's test views"),
    "inspect": ("dpdy_core.cli", "the capture report, before any training"),
    "synth": ("dpdy_core.cli", "a procedural moving scene as a capture"),
    "ablate": ("dpdy_core.cli", "the paper's ablations on one capture, as a table"),
    "export": ("dpdy_core.cli", "point cloud, frames or cameras of a run"),
    "serve": ("worker.cli", "the service embedded: API, page and one worker"),
    "worker": ("worker.cli", "one production worker"),
    "admin": ("worker.admin", "the operator: API keys, drain workers, free disk, fault drill"),
    "upload": ("api.client.cli", "send a capture to a server"),
    "submit": ("api.client.cli", "start a job; with --wait --download the whole story"),
    "status": ("api.client.cli", "where a job stands"),
    "watch": ("api.client.cli", "follow a job until it ends"),
    "logs": ("api.client.cli", "the log of a job"),
    "cancel": ("api.client.cli", "stop a job"),
    "retry": ("api.client.cli", "go on with a job that failed or was cancelled"),
    "delete": ("api.client.cli", "delete a job and its files"),
    "list": ("api.client.cli", "the jobs, newest first"),
    "download": ("api.client.cli", "the results of a job"),
    "vote": ("api.client.vote", "blind comparison of renders: make a study, vote, read results"),
}


def main(argv: list[str] | None = None) -> None:
    """Run one sub-command and exit with its code (see `dpdy_core.command`)."""
    arguments = sys.argv[1:] if argv is None else argv
    name = next((argument for argument in arguments if argument != "--debug"), "")
    app = importlib.import_module(COMMANDS[name][0]).app if name in COMMANDS else overview()
    sys.exit(run_command(app, arguments, prog="dpdy"))


def overview() -> typer.Typer:
    """An app that only knows what the commands are called: for `dpdy --help`, `--version` and misspelt names."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)

    @app.callback()
    def dpdy(
        version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Version.")] = False,
    ) -> None:
        """One video of a moving scene in, novel views out.

        Example: dpdy run video.mp4 --out runs/video --preset smoke
        """

    for name, (_, summary) in COMMANDS.items():
        app.command(name, help=summary)(_never)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dpdy {__version__}")
        raise typer.Exit


def _never() -> None:
    """Stands for a command in the overview; `main` loads the real one."""


if __name__ == "__main__":
    main()
