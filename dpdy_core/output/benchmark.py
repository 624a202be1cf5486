"""Several scored runs as one benchmark: a mean over scenes, beside what others report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.output import published
from dpdy_core.output.benchmark_tables import latex, markdown
from dpdy_core.output.scores import MEASURES, REGIONS
from dpdy_core.rundir import RunDir, read_json, write_atomic, write_json

MOST_SCENES = 1000
KEPT = ("resolution", "deviations", "config_hash", "seed", "capture_hash", "versions", "device", "mean", "pck_t")
TOLD = ("lpips is null", "flip is null", "ms_ssim is null", "covisible", "pck_t")  # notes on what the tables show

Document = dict[str, Any]


def read_scene_list(path: Path) -> list[tuple[str | None, Path]]:
    """Name (or None) and run folder of each line `RUN` or `NAME = RUN` of `path`; `#` begins a comment.

    Folders are relative to the list. Raises BadInput for a list that cannot be read or names none.
    """
    remedy = "write one run folder a line, or NAME = RUN"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a list of scenes that can be read", remedy) from error
    scenes: list[tuple[str | None, Path]] = []
    for line in (line.split("#")[0].strip() for line in lines):
        name, equals, folder = (part.strip() for part in line.partition("="))
        if equals and not folder:
            raise BadInput(f"{path} names no run folder for {name!r}", remedy)
        if line:
            scenes.append((name or None, path.parent / folder) if equals else (None, path.parent / line))
    if not 0 < len(scenes) <= MOST_SCENES:
        raise BadInput(f"{path} names {len(scenes)} runs; 1 to {MOST_SCENES} can be compared", remedy)
    return scenes


def benchmark(runs: list[tuple[str | None, RunDir]]) -> Document:
    """The scores of `runs` (scene name or None, folder), all evaluated by one protocol; else BadSettings.

    A scene without a name is called after its capture, and after its run folder where captures share a name. The mean
    over scenes is null where any scene has no value.
    """
    metrics = [read_json(run.metrics_file) for _, run in runs]
    protocols = {document["protocol"] for document in metrics}
    if len(protocols) > 1:
        raise BadSettings(f"the runs were scored by {', '.join(sorted(protocols))}", "name one with --protocol")
    scenes = [
        {"scene": name, "run": str(run.root), "views": len(document["views"]), **{key: document[key] for key in KEPT}}
        for name, (_, run), document in zip(_names(runs), runs, metrics, strict=True)
    ]
    if len({scene["scene"] for scene in scenes}) < len(scenes):
        raise BadSettings("two scenes have one name", "give each its own in the list, or leave names out")
    unscored = [(scene, document) for scene, document in zip(scenes, metrics, strict=True) if not document["views"]]
    protocol = protocols.pop()
    notes = list(dict.fromkeys(n for document in metrics for n in document["notes"] if n.startswith(TOLD)))
    notes += [f"{scene['scene']}: {document['notes'][0]}" for scene, document in unscored]
    notes += [f"{scene['scene']}: {reason}" for scene in scenes for reason in scene["deviations"]]
    mean, pck_t = _mean([scene["mean"] for scene in scenes]), _over([scene["pck_t"] for scene in scenes])
    document = {"protocol": protocol, "scenes": scenes, "mean": mean, "pck_t": pck_t}
    if protocol == "dycheck":
        names = {scene["scene"] for scene in scenes}
        if names != set(published.SCENES):
            notes.append(f"published means are over {', '.join(published.SCENES)}; ours is over other scenes")
        return {**document, "published": _published(), "notes": [*notes, *published.NOTES]}
    return {**document, "published": None, "notes": [*notes, f"no published rows are kept for protocol {protocol}"]}


def prepare_folder(out: Path) -> None:
    """Make the folder of a benchmark, before hours are spent on its numbers. Raises BadSettings."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings(f"the folder {out} cannot be made ({error.strerror})", "give another --out") from error


def write_benchmark(out: Path, document: Document) -> None:
    """Write `benchmark.json`, `benchmark.md` and `benchmark.tex` into the folder `out`."""
    write_json(out / "benchmark.json", document)
    for name, text in (("benchmark.md", markdown(document)), ("benchmark.tex", latex(document))):
        write_atomic(out / name, lambda partial, text=text: _write(partial, text))  # type: ignore[misc]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _names(runs: list[tuple[str | None, RunDir]]) -> list[str]:
    names = [" ".join((name or run.read_config()[1].stem).split()) for name, run in runs]  # of one line each
    for candidates in ([run.root.resolve().name for _, run in runs], [str(run.root) for _, run in runs]):
        if len(set(names)) == len(names):
            break
        names = [name or other for (name, _), other in zip(runs, candidates, strict=True)]
    return names


def _over(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _mean(means: list[Document]) -> Document:
    mean: Document = {measure: _over([m[measure] for m in means]) for measure in MEASURES}
    for region in REGIONS:
        mean[region] = {measure: _over([m[region][measure] for m in means]) for measure in MEASURES}
    return mean


def _published() -> Document:
    return {
        "protocol": published.PROTOCOL,
        "scenes": list(published.SCENES),
        "means": [asdict(row) for row in published.MEANS],
        "per_scene": {
            scene: {method: dict(zip(("psnr", "ssim", "lpips"), row, strict=True)) for method, row in rows.items()}
            for scene, rows in published.PER_SCENE.items()
        },
        "per_scene_source": published.PER_SCENE_SOURCE,
    }
