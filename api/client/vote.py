"""`dpdy vote`: make a user study, vote in it, read its results."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.client.cli import LOCAL, ApiKey, AsJson, Server, write_json
from api.client.client import Document, DpdyClient
from api.client.studies import (
    cast_vote,
    close_study,
    create_study,
    delete_study,
    get_ballot,
    get_study,
    invite_voters,
    join_study,
    list_studies,
    read_clip,
    study_results,
    votes_csv,
)
from dpdy_core.errors import BadSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

CHOICES = {"l": "left", "left": "left", "r": "right", "right": "right", "t": "tie", "tie": "tie"}
QUIT = ("q", "quit")


@app.callback()
def group() -> None:
    """Keeps `vote` the name of a command: of a single one typer would drop it."""


@app.command()
def vote(
    study: Annotated[str | None, typer.Argument(metavar="STUDY", help="The id of a study; none: list them.")] = None,
    new: Annotated[str | None, typer.Option(metavar="NAME", help="Make a study; voters see its name.")] = None,
    clip: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD[:SCENE]=SOURCE", help="Of a new study; SOURCE is a job, a video or a run folder."),
    ] = None,
    path: Annotated[str, typer.Option(help="Camera path of jobs and run folders.")] = "orbit",
    question: Annotated[str | None, typer.Option(help="What voters are asked.")] = None,
    ties: Annotated[bool, typer.Option(help="Whether voters may see no difference.")] = True,
    voter: Annotated[str | None, typer.Option(help="Go on as the voter of an earlier call.")] = None,
    invite: Annotated[int | None, typer.Option(min=1, max=1000, help="Make pages for so many voters.")] = None,
    results: Annotated[bool, typer.Option("--results", help="Scores, intervals, agreement.")] = False,
    flagged: Annotated[bool, typer.Option("--flagged", help="Count voters who contradict themselves, too.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every vote to a CSV file.")] = None,
    close: Annotated[bool, typer.Option("--close", help="Take no more votes.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the study with its votes.")] = False,
    server: Server = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Compare renders blind: make a study, vote in it, read its results.

    Example: dpdy vote --new "Dog in the park" --clip ours=job-12ab --clip rival=rival.mp4

    Example: dpdy vote STUDY --invite 30 > pages.txt

    Example: dpdy vote STUDY --results
    """
    if sum((new is not None, invite is not None, results, csv is not None, close, delete)) > 1:
        names = "--new, --invite, --results, --csv, --close, --delete"
        raise BadSettings(f"only one of {names} can be done at a time", "give one")
    if (study is None) != (new is not None) and (study or invite or results or csv or close or delete or voter):
        raise BadSettings("which study?" if study is None else "--new takes no STUDY", "`dpdy vote` lists the studies")
    if clip and new is None:
        raise BadSettings("--clip belongs to a new study", "give --new NAME")
    with DpdyClient(server, api_key) as client:
        if new is not None:
            fields = {"ties": ties} | ({"question": question} if question else {})
            sources = [read_clip(text, path) for text in clip or []]  # all are read before the first is sent
            document = create_study(client, new, [_send(client, *source) for source in sources], **fields)
            sys.stderr.write(f"voters open {client.server}{document['links']['page']}\n")
            write_json(document) if as_json else typer.echo(document["id"])
        elif study is None:
            _list(list_studies(client, 100), as_json)
        elif invite is not None:
            document = invite_voters(client, study, invite)
            pages = "\n".join(f"{client.server}{voter['page']}" for voter in document["items"])
            write_json(document) if as_json else typer.echo(pages)
        elif results:
            _show(study_results(client, study, flagged), as_json)
        elif csv is not None:
            csv.write_text(votes_csv(client, study), encoding="utf-8", newline="")
            write_json({"file": str(csv)}) if as_json else typer.echo(str(csv))
        elif close:
            document = close_study(client, study)
            write_json(document) if as_json else typer.echo(f"{study}  {document['state']}")
        elif delete:
            delete_study(client, study)
            write_json({"id": study, "deleted": True}) if as_json else typer.echo(f"{study}  deleted")
        else:
            ballot = _cast(client, study, voter)
            write_json(ballot) if as_json else typer.echo(f"{ballot['done']} of {ballot['total']} pairs judged")


def _send(client: DpdyClient, clip: Document, video: Path | None) -> Document:
    return {**clip, "upload_id": client.wait_upload(client.upload(video)["id"])["id"]} if video else clip


def _cast(client: DpdyClient, study: str, voter: str | None) -> Document:
    """Ask for every pair that is left; the ballot at the end, or where the voter stopped."""
    about = get_study(client, study)
    ballot = get_ballot(client, study, voter) if voter else join_study(client, study)
    keys = "[l]eft, [r]ight" + (", [t]ie" if about["ties"] else "") + " or [q]uit? "
    sys.stderr.write(f"{about['name']}\n{about['question']}\n")
    while pair := ballot["pair"]:
        sys.stderr.write(f"\npair {pair['number']} of {ballot['total']}\n")
        for side in ("left", "right"):
            sys.stderr.write(f"  {side:<5}  {client.server}{pair[side]}\n")
        choice = _ask(keys, about["ties"])
        if choice is None:
            sys.stderr.write(f"\ngo on with `dpdy vote {study} --voter {ballot['voter']}`\n")
            break
        ballot = cast_vote(client, study, ballot["voter"], pair["id"], choice)
    return ballot


def _ask(keys: str, ties: bool) -> str | None:
    """A choice; None to stop, also at the end of the input."""
    while True:
        sys.stderr.write(keys)
        sys.stderr.flush()
        line = sys.stdin.readline()
        word = line.strip().lower()
        if not line or word in QUIT:
            return None
        if word in CHOICES and (ties or CHOICES[word] != "tie"):
            return CHOICES[word]


def _list(page: Document, as_json: bool) -> None:
    if as_json:
        return write_json(page)
    table = Table(box=None)
    for column in ("study", "name", "state", "voters", "created"):
        table.add_column(column)
    for study in page["items"]:
        table.add_row(study["id"], study["name"], study["state"], str(study["voters"]), study["created_at"])
    Console(highlight=False, markup=False).print(table)


def _show(document: Document, as_json: bool) -> None:
    if as_json:
        return write_json(document)
    console = Console(highlight=False, markup=False)
    table = Table(box=None, title=document["study"]["name"], title_justify="left")
    for column in ("method", "score", "95 %", "wins", "ties", "losses"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in document["methods"]:
        interval = f"{row['low']:+.2f} … {row['high']:+.2f}"
        counts = (str(row[key]) for key in ("wins", "ties", "losses"))
        table.add_row(row["method"], f"{row['score']:+.2f}", interval, *counts)
    console.print(table)
    for pair in document["comparisons"]:
        if pair["preferred"] is not None:
            share = f"{pair['preferred']:.0%} ({pair['low']:.0%} … {pair['high']:.0%})"
            console.print(f"{pair['first']} preferred to {pair['second']}: {share}")
    flagged = sum(voter["flagged"] for voter in document["voters"])
    voters = f"{document['votes']} votes, {len(document['voters'])} voters, {flagged} of them contradict themselves"
    console.print(f"{voters}; intervals: {document['interval']}")
    if agreed := document["agreement"]:
        console.print(f"agreement: {agreed['same']:.0%} of answers equal, Kendall's u {agreed['u']:+.2f}")
    for note in document["notes"]:
        console.print(f"note: {note}")
