"""The command `dpdy ablate`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dpdy_core import __version__
from dpdy_core.ablation.plan import make_trials
from dpdy_core.ablation.rows import ROWS, chosen_rows
from dpdy_core.ablation.table import combine, markdown, write_tables
from dpdy_core.errors import BadInput, BadSettings, JobFailed
from dpdy_core.presets import PRESETS, parse_assignments
from dpdy_core.progress import Reporter
from dpdy_core.rundir import read_json
from dpdy_core.supervised import stop_on_signals


def ablate(
    captures: Annotated[list[Path], typer.Argument(metavar="CAPTURE", help="With --combine: folders of ablations.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Tables and runs; resumes what it holds.")],
    preset: Annotated[str, typer.Option(help=" | ".join(PRESETS))] = "fast",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, in every row.")
    ] = None,
    rows: Annotated[str | None, typer.Option(metavar="NAME,...", help=", ".join(row.name for row in ROWS))] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N,...", help="For full and no_prior; the rest takes the first.")
    ] = "0,1,2",
    every_seed: Annotated[bool, typer.Option("--every-seed", help="All rows with all seeds.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda")] = None,
    together: Annotated[bool, typer.Option("--combine", help="Only average finished ablations.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run the paper's ablations on a capture, as a table of the rows asked for; what is finished is kept.

    Example: dpdy ablate captures/rigid --out ablations/rigid --seeds 0,1,2 --jobs 4
    """
    from dpdy_core.ablation.study import Study  # pictures load slowly: only where they are used

    if together:
        document = _combined(captures, out)
    else:
        if len(captures) != 1:
            raise BadSettings("one capture at a time", "ablate each into a folder of its own, then --combine them")
        overrides = parse_assignments(settings or []) | ({"device": device} if device else {})
        chosen = chosen_rows(rows.split(",") if rows else None)
        numbers = _seeds(seeds)
        head = {"preset": preset, "settings": overrides, "jobs": jobs, "version": __version__}
        study = Study(captures[0], out, make_trials(out, chosen, numbers, every_seed, preset, overrides), head)
        stop = Reporter()
        with stop_on_signals(stop):
            document = study.run(jobs, stop.check, lambda line: typer.echo(line, err=True))
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n" if as_json else markdown(document))
    runs = [run for row in document["rows"] for run in row["runs"]]
    failed = sum(run["status"] == "failed" for run in runs)
    if failed == len(runs):
        raise JobFailed(f"all {failed} runs failed", f"{out / 'ablation.md'} lists the reasons")


def _seeds(text: str) -> list[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise BadSettings(f"{text!r} are not seeds", "write for example --seeds 0,1,2")
    return list(dict.fromkeys(int(part) for part in text.split(",")))


def _combined(folders: list[Path], out: Path) -> dict[str, Any]:
    for folder in folders:
        if not (folder / "ablation.json").is_file():
            raise BadInput(f"{folder} holds no ablation", "give folders that `dpdy ablate --out` wrote")
    document = combine([read_json(folder / "ablation.json") for folder in folders])
    write_tables(out, document)
    return document
