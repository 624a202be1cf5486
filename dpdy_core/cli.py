"""The commands that work on folders, without any service: run, render, eval, inspect, synth, export, ablate."""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dpdy_core.ablation.command import ablate
from dpdy_core.config import STAGES, RunConfig
from dpdy_core.errors import BadInput, BadSettings, RunBusy
from dpdy_core.faults import faults_told_apart
from dpdy_core.ingest.command import inspect
from dpdy_core.presets import PRESETS, changed, parse_assignments, resolve
from dpdy_core.progress import Reporter, append_file, console
from dpdy_core.rundir import RunDir, read_json
from dpdy_core.supervised import die_with_parent, follow_pulse, pipe_sink, stop_on_signals

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(ablate)

LOG_SECONDS = 10.0  # between two step lines of a supervised run's log

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
ProgressOption = Annotated[
    str, typer.Option("--progress", help="`console` (stderr) or `json` (one event a line, stdout).")
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True, help="End when the parent process ends.")]
Pulse = Annotated[
    float | None, typer.Option("--pulse", hidden=True, metavar="SECONDS", help="Stop when stdin is silent for so long.")
]
Attempt = Annotated[int, typer.Option("--attempt", hidden=True)]


@app.command()
def run(
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="Video, capture folder or zip; or a run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="The run folder; resumes what it holds.")
    ] = None,
    preset: Annotated[str, typer.Option(help=" | ".join(PRESETS))] = "fast",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    device: Annotated[str | None, typer.Option(help="auto | cpu | cuda")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes a CPU run bit for bit.")] = None,
    progress: ProgressOption = "console",
    supervised: Supervised = False,
    pulse: Pulse = None,
    attempt: Attempt = 1,
    until: Annotated[str, typer.Option("--until", hidden=True, help="The last stage to run, or trunk.")] = STAGES[-1],
    as_json: AsJson = False,
) -> None:
    """Run the whole method on a capture, or resume a run.

    Example: dpdy run video.mp4 --out runs/video --preset smoke --set scene.steps=600
    """
    _tie_to_parent(supervised, pulse)
    fresh = False
    if out is None:
        if not (capture / "config.json").is_file():
            raise BadSettings(f"{capture} is not a run folder", "give --out RUN for the folder that the run writes")
        folder = RunDir(capture)
    else:
        overrides: dict[str, Any] = {"prior.model": prior} if (prior := os.environ.get("DPDY_PRIOR")) else {}
        overrides |= parse_assignments(settings or [])
        overrides |= {k: v for k, v in (("device", device), ("seed", seed)) if v is not None}
        folder = RunDir(out)
        fresh = prepare_run(folder, capture, resolve(preset, overrides))
    reporter = _reporter(folder, progress)
    try:
        with _locked(folder):
            execute(folder, reporter, attempt, until)
    except BadInput:
        if fresh:
            shutil.rmtree(folder.root)  # nothing was made of an unusable capture
        raise
    if as_json:
        videos = [str(p) for p in sorted(folder.renders.glob("*.mp4"))]
        _write_json({"run": str(folder.root), "videos": videos, "metrics": read_json(folder.metrics_file)})


def prepare_run(folder: RunDir, capture: Path, config: RunConfig) -> bool:
    """Make `folder` the run of `capture` with `config`, or check that it is; True if it is new."""
    capture = capture.resolve()
    if folder.config_file.exists():
        folder.open_config(config)
        source = folder.read_config()[1]
        if source != capture:
            raise BadSettings(f"{folder.root} holds a run of {source}, not of {capture}", "give another --out")
        return False
    if folder.root.exists() and any(folder.root.iterdir()):
        raise BadSettings(f"{folder.root} is not empty and not a run", "give another --out")
    if not capture.exists():
        raise BadInput(f"{capture} does not exist", "check the path")
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.write_config(config, capture, {})
    return True


def execute(folder: RunDir, reporter: Reporter, attempt: int, until: str = STAGES[-1]) -> None:
    """Run the pipeline under signals; an expected failure is also an event."""
    from dpdy_core.pipeline import run_pipeline  # torch and diffusers take seconds to load: only where they are used

    with stop_on_signals(reporter), faults_told_apart():
        run_pipeline(folder, reporter, attempt, until)


@app.command()
def render(
    run: RunArgument,
    path: Annotated[str, typer.Option("--path", metavar="NAME_OR_FILE", help="Path name or nerfstudio camera path.")],
    fps: Annotated[float | None, typer.Option(min=0.1, max=240)] = None,
    width: Annotated[int | None, typer.Option(min=16, max=4096)] = None,
    out: Annotated[Path | None, typer.Option(help="The mp4 to write; default RUN/renders/<path>.mp4")] = None,
    progress: ProgressOption = "console",
    supervised: Supervised = False,
    pulse: Pulse = None,
    as_json: AsJson = False,
) -> None:
    """Render another camera path from a finished run.

    Example: dpdy render runs/video --path orbit --fps 24 --width 640
    """
    from dpdy_core.output.views import render_path

    _tie_to_parent(supervised, pulse)
    folder = _finished_scene(run)
    reporter = _reporter(folder, progress, record=False)
    with stop_on_signals(reporter), faults_told_apart():
        reporter.start("render")
        videos = render_path(folder, folder.read_config()[0], path, fps, width, out, reporter)
        reporter.done()
        reporter.emit("finished")
    if as_json:
        _write_json({"videos": [str(video) for video in videos]})
    elif progress == "console":
        typer.echo("\n".join(str(video) for video in videos))


@app.command(name="eval")
def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Run folders; several make a benchmark.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="plain | dycheck | nvidia; default the run's own")] = None,
    scenes: Annotated[
        Path | None, typer.Option("--scenes", metavar="FILE", help="A list of run folders, one a line: a benchmark.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write benchmark.md, .tex and .json there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score finished runs on their captures' test views; several, or a list of them, become a benchmark table.

    Example: dpdy eval runs/apple runs/block --protocol dycheck --out benchmark
    """
    from dpdy_core.output.benchmark import benchmark, prepare_folder, read_scene_list, write_benchmark
    from dpdy_core.output.benchmark_tables import markdown

    named: list[tuple[str | None, Path]] = [(None, run) for run in runs or []]
    named += read_scene_list(scenes) if scenes else []
    if not named:
        raise BadSettings("no run is given", "name run folders, or a list of them with --scenes")
    folders = [(name, _finished_scene(run)) for name, run in named]
    if len({folder.root.resolve() for _, folder in folders}) < len(folders):
        raise BadSettings("a run is given twice, and would count twice", "name every run once")
    if out:
        prepare_folder(out)
    for _, folder in folders:
        _score(folder, protocol)
    if len(folders) == 1 and not (scenes or out):
        metrics = read_json(folders[0][1].metrics_file)
        if not as_json:
            typer.echo("\n".join(f"note: {note}" for note in metrics["notes"]), err=True)
        _write_json(metrics) if as_json else typer.echo(json.dumps(metrics["mean"], indent=2))
        return
    document = benchmark(folders)
    if out:
        write_benchmark(out, document)
    _write_json(document) if as_json else typer.echo(markdown(document), nl=False)


def _score(folder: RunDir, protocol: str | None) -> None:
    """Evaluate a finished run by `protocol`, or its own, and write its report anew."""
    from dpdy_core.output.evaluation import evaluate_run
    from dpdy_core.output.report import write_report
    from dpdy_core.runtime import compute_deterministically, resolve_device

    config = folder.read_config()[0]
    if protocol is not None:
        config = changed(config, {"evaluate.protocol": protocol})
    compute_deterministically(resolve_device(config.device))
    reporter = _reporter(folder, "console", record=False)
    with stop_on_signals(reporter), _locked(folder), faults_told_apart():
        reporter.start("evaluate")
        evaluate_run(folder, config, reporter)
        write_report(folder)
        reporter.done()


app.command()(inspect)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The capture folder to make.")],
    scene: Annotated[str, typer.Option(help="Kind of scene.")] = "rigid",
    frames: Annotated[int, typer.Option(min=2, max=2000, help="Training frames.")] = 24,
    size: Annotated[str, typer.Option(metavar="WxH")] = "128x96",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a procedural moving scene as a capture: held-out views, true depth and masks.

    Example: dpdy synth captures/rigid --scene rigid --frames 24 --size 128x96
    """
    from dpdy_core.synth.capture import make_capture

    width, separator, height = size.partition("x")
    if not (separator and width.isdigit() and height.isdigit()):
        raise BadSettings(f"{size!r} is not WxH", "write for example --size 128x96")
    make_capture(out, scene, frames, int(width), int(height), seed, Reporter(console()))
    if as_json:
        _write_json({"capture": str(out), "scene": scene, "frames": frames, "size": [int(width), int(height)]})


@app.command()
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="ply | frames | transforms | colmap")],
    out: Annotated[Path | None, typer.Option(help="Where to; default RUN/export")] = None,
    as_json: AsJson = False,
) -> None:
    """Export point cloud, frames or cameras (nerfstudio or COLMAP, with the images) of a finished run.

    Example: dpdy export runs/video --to ply
    """
    from dpdy_core.output.export import export_run

    folder = _finished_scene(run)
    written = export_run(folder, to, out or folder.root / "export")
    _write_json({"written": str(written)}) if as_json else typer.echo(str(written))


def _tie_to_parent(supervised: bool, pulse: float | None) -> None:
    if supervised:
        die_with_parent()
    if pulse is not None:
        follow_pulse(pulse)


def _reporter(folder: RunDir, progress: str, record: bool = True) -> Reporter:
    if progress not in ("console", "json"):
        raise BadSettings(f"there is no progress format {progress!r}", "use console or json")
    sinks = [append_file(folder.events_file)] if record else []
    reporter = Reporter(*sinks)
    if progress == "json":
        reporter.add_sink(pipe_sink(sys.stdout, reporter))
    reporter.add_sink(console(seconds=LOG_SECONDS if progress == "json" else 0))
    return reporter


def _finished_scene(run: Path) -> RunDir:
    folder = RunDir(run)
    try:
        is_run = folder.config_file.is_file()
    except OSError:  # a name that no file can have
        is_run = False
    if not is_run:
        raise BadInput(f"{run} is not a run folder", "give the folder that `dpdy run --out` wrote")
    if folder.stage_record("scene") is None:
        raise BadInput(f"the scene of {run} is not finished", f"finish it with `dpdy run {run}`")
    return folder


@contextmanager
def _locked(folder: RunDir) -> Iterator[None]:
    """Keep two processes from working in one run folder; the lock goes with the process."""
    with (folder.root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunBusy(f"another process works in {folder.root}", "wait for it or stop it") from error
        yield


def _write_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
