"""The client's commands: upload submit status watch logs cancel retry delete list download (`vote` is in `vote.py`)."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from api.client.client import RESULTS, Document, DpdyClient
from api.client.display import Display, clock, metrics_table
from api.client.errors import raise_unless_succeeded
from dpdy_core.config import PATH_NAMES
from dpdy_core.errors import BadInput
from dpdy_core.presets import PRESETS, parse_assignments

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Job = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job.")]
Capture = Annotated[Path, typer.Argument(metavar="CAPTURE", help="A video, a capture folder or a zip of one.")]
Server = Annotated[str, typer.Option(envvar="DPDY_SERVER", help="URL of the server.")]
ApiKey = Annotated[str | None, typer.Option(envvar="DPDY_API_KEY", help="Key, where the server asks for one.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Folder = Annotated[Path | None, typer.Option("--download", metavar="DIR", help="Fetch the results into DIR.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def upload(capture: Capture, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Send a capture and have it checked, without starting a job.

    Example: dpdy upload video.mp4
    """
    with DpdyClient(server, api_key) as client, Display() as display:
        document = _send(client, capture, display)
    if as_json:
        return write_json(document)
    typer.echo(document["id"])


@app.command()
def submit(
    capture: Capture,
    preset: Annotated[str, typer.Option(help=" | ".join(PRESETS))] = "fast",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME_OR_FILE", help=f"Camera path: {', '.join(PATH_NAMES)}, or a camera-path JSON."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job; default: the file's name.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job until it ends.")] = False,
    download: Folder = None,
    server: Server = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Upload a capture and start a job on it.

    Example: dpdy submit video.mp4 --preset fast --wait --download results
    """
    overrides = parse_assignments(settings or [])
    paths = [camera_path(text) for text in path or []]
    with DpdyClient(server, api_key) as client:
        with Display() as display:
            sent = _send(client, capture, display)
            job = client.submit(sent["id"], preset, overrides, name or capture.resolve().name, paths)
            display.say(f"job {job['id']}  {server.rstrip('/')}/#/jobs/{job['id']}")
        if wait or download:
            show_results(*follow(client, job["id"], download), as_json)
        elif as_json:
            write_json(job)
        else:
            typer.echo(job["id"])


@app.command()
def status(job: Job, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Say where a job stands.

    Example: dpdy status JOB
    """
    with DpdyClient(server, api_key) as client:
        document = client.job(job)
    if as_json:
        return write_json(document)
    console = Console(highlight=False)
    line = f"{document['id']}  {document['state']}"
    if document["state"] == "running":
        eta = document.get("eta_seconds")
        line += f"  {document['stage']}  {document['progress'] or 0:.0%}" + (f"  eta {clock(eta)}" if eta else "")
    console.print(line, markup=False)
    for note in document.get("warnings") or []:
        console.print(f"note: {note}", markup=False)
    if problem := document.get("problem"):
        console.print(f"{problem.get('detail')}. {problem.get('remedy') or ''}".rstrip(), markup=False)
    if document.get("metrics"):
        console.print(metrics_table(document["metrics"]))


@app.command()
def watch(
    job: Job, download: Folder = None, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Follow a job until it ends; the exit code is the job's.

    Example: dpdy watch JOB --download results
    """
    with DpdyClient(server, api_key) as client:
        show_results(*follow(client, job, download), as_json)


@app.command()
def logs(
    job: Job,
    to_the_end: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    server: Server = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print the log of a job.

    Example: dpdy logs JOB --follow
    """
    with DpdyClient(server, api_key) as client:
        lines = client.log_lines(job, to_the_end)
        if as_json:
            return write_json({"lines": list(lines)})
        for line in lines:
            typer.echo(line["text"])


@app.command()
def cancel(job: Job, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Stop a job. It keeps its last checkpoint, so that retry can go on.

    Example: dpdy cancel JOB
    """
    with DpdyClient(server, api_key) as client:
        document = client.cancel(job)
    write_json(document) if as_json else typer.echo(f"{job}  {document['state']}")


@app.command()
def retry(job: Job, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go on with a failed or cancelled job from its last checkpoint.

    Example: dpdy retry JOB
    """
    with DpdyClient(server, api_key) as client:
        document = client.retry(job)
    write_json(document) if as_json else typer.echo(f"{job}  {document['state']}  attempt {document['attempt']}")


@app.command()
def delete(job: Job, server: Server = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Delete a job with its capture, weights and results. A running job is stopped first.

    Example: dpdy delete JOB
    """
    with DpdyClient(server, api_key) as client:
        document = client.delete(job)
    write_json(document) if as_json else typer.echo(f"{job}  deleted")


@app.command(name="list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier page ended.")] = None,
    server: Server = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs, newest first.

    Example: dpdy list --state running
    """
    with DpdyClient(server, api_key) as client:
        page = client.list(state, tag, limit, cursor)
    if as_json:
        return write_json(page)
    table = Table(box=None)
    for column in ("job", "name", "state", "stage", "progress", "created"):
        table.add_column(column)
    for job in page["items"]:
        progress = f"{job['progress'] or 0:.0%}"
        cells = (job["id"], job["name"], job["state"], job["stage"], progress, job["created_at"])
        table.add_row(*(str(cell) if cell is not None else "" for cell in cells))
    Console(highlight=False).print(table)
    if page.get("next_cursor"):
        typer.echo(f"more: dpdy list --cursor {page['next_cursor']}", err=True)


@app.command()
def download(
    job: Job,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")] = Path(),
    only: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="For example 'renders/*_depth.mp4'.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also capture, prior and checkpoints.")] = False,
    server: Server = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the results of a job; what an earlier call began is continued.

    Example: dpdy download JOB --out results
    """
    patterns = ["*"] if everything else only or RESULTS
    with DpdyClient(server, api_key) as client:
        files = _fetch(client, job, out, patterns)
    if as_json:
        return write_json({"files": [str(file) for file in files]})
    for file in files:
        typer.echo(str(file))


def follow(client: DpdyClient, job_id: str, folder: Path | None) -> tuple[Document, Sequence[Path]]:
    """Show a job until it ends and fetch its results into `folder`: the job and the files.

    Raises JobFailed or Cancelled if it ended so.
    """
    job: Document = {}
    with Display() as display:
        try:
            for job in client.watch(job_id):
                display.job(job)
        except KeyboardInterrupt:
            display.say(f"the job goes on: `dpdy watch {job_id}` follows it, `dpdy cancel {job_id}` stops it")
            raise
    raise_unless_succeeded(job)
    return job, _fetch(client, job_id, folder, RESULTS) if folder else []


def show_results(job: Document, files: Sequence[Path], as_json: bool) -> None:
    """Print a finished job: its metrics and the paths of the videos that were fetched."""
    if as_json:
        return write_json({**job, "files": [str(file) for file in files]})
    if job.get("metrics"):
        Console(highlight=False).print(metrics_table(job["metrics"]))
    for file in files:
        if file.suffix == ".mp4":
            typer.echo(str(file))


def camera_path(text: str) -> Any:
    """A path's name, or the document of a nerfstudio camera-path file. Raises BadInput for a file that is not one."""
    if text in PATH_NAMES:
        return text
    file = Path(text)
    if not file.is_file():
        raise BadInput(f"{text!r} is neither a path name nor a file", f"use one of {', '.join(PATH_NAMES)} or a file")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{file} is not JSON: {error}", "export the path from nerfstudio's viewer") from error
    if not isinstance(document, dict) or "camera_path" not in document:
        raise BadInput(f"{file} holds no camera_path", "export the path from nerfstudio's viewer")
    name = re.sub("[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:40] or "path"
    return {**document, "name": name}


def _send(client: DpdyClient, capture: Path, display: Display) -> Document:
    sent = client.upload(capture, lambda done, total: display.transfer("upload", done, total))
    return client.wait_upload(sent["id"])


def _fetch(client: DpdyClient, job_id: str, folder: Path, patterns: Sequence[str]) -> Sequence[Path]:
    with Display() as display:
        return client.download(job_id, folder, patterns, lambda done, total: display.transfer("download", done, total))


def write_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
