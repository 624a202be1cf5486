"""The document of an ablation (`ablation.json`) as markdown, and several documents as one."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpdy_core.ablation.rows import EXPECTATIONS, Expectation
from dpdy_core.rundir import write_atomic, write_json
from dpdy_core.stages import TRUNK

# path in a run's mean scores, heading, digits
COLUMNS = (
    ("psnr", "PSNR", 2),
    ("covisible.psnr", "co-visible", 2),
    ("unseen.psnr", "unseen", 2),
    ("static.psnr", "static", 2),
    ("moving.psnr", "moving", 2),
    ("ssim", "SSIM", 3),
    ("ms_ssim", "MS-SSIM", 3),
    ("unseen.ms_ssim", "MS-SSIM unseen", 4),
    ("abs_rel", "depth error", 4),
    ("unseen.abs_rel", "depth error unseen", 4),
    ("static.flicker", "flicker", 2),
    ("sharpness", "sharpness", 2),
)
BASELINES = {"nearest_frame": "nearest frame", "all_times_warp": "all-times warp"}

Document = dict[str, Any]


def write_tables(out: Path, document: Document) -> None:
    """Write `ablation.json` and `ablation.md`."""
    write_json(out / "ablation.json", document)
    text = markdown(document)
    write_atomic(out / "ablation.md", lambda partial: _write(partial, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def markdown(document: Document) -> str:
    """Two tables: the measures of each row with their spread over seeds, and what was expected of them."""
    head = ["", "seeds", *(title for _, title, _ in COLUMNS), "scene s", "all s"]
    lines = [f"# Ablation of {', '.join(document['captures'])}", "", _line(head), "|---|" + "--:|" * (len(head) - 1)]
    for row in document["rows"]:
        done = _done(row)
        failed = [run for run in row["runs"] if run["status"] == "failed"]
        cells = [_spread([_value(r["mean"], path) for r in done], digits) for path, _, digits in COLUMNS]
        seconds = [_spread([_scene_seconds(r) for r in done], 0), _spread([_total(r) for r in done], 0)]
        count = str(len(done)) + (f" ({len(failed)} failed)" if failed else "")
        lines.append(_line([row["label"], count, *cells, *seconds]))
    for name, mean in baselines(document).items():
        cells = [_spread([_value(mean, path)], digits) for path, _, digits in COLUMNS]
        lines.append(_line([BASELINES.get(name, name), "-", *cells, "-", "-"]))
    lines += ["", *_legend(document), "", *_expectations(document), *_failures(document)]
    return "\n".join(lines) + "\n"


def baselines(document: Document) -> dict[str, Any]:
    """The scores of each baseline, from the first run that is done: they depend on no row but on the given depth."""
    for row in document["rows"]:
        for run in _done(row):
            return dict(run["baselines"])
    return {}


def judged(document: Document, expected: Expectation) -> tuple[list[float], bool] | None:
    """By how much the better row is better, seed by seed, and whether their mean is enough; None if a row is missing.

    Rows that ran with the same seeds are compared seed by seed; a baseline is the same for all.
    """
    sides = []
    for name in (expected.better, expected.worse):
        base = baselines(document).get(name)
        row = next((row for row in document["rows"] if row["name"] == name), None)
        values = {run["seed"]: _value(run["mean"], expected.measure) for run in _done(row)} if row else {}
        if base is not None:
            values = dict.fromkeys(_seeds(document), _value(base, expected.measure))
        sides.append(values)
    pairs = [(sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]]
    gains = [(b - a if expected.lower else a - b) for a, b in pairs if a is not None and b is not None]
    if not gains:
        return None
    mean = statistics.fmean(gains)
    return gains, mean >= expected.least if expected.least else mean > 0


def combine(documents: list[Document]) -> Document:
    """The means over several captures, seed by seed, as a document of the same form.

    A seed of a row counts only if it is done on every capture.
    """
    rows = []
    for row in documents[0]["rows"]:
        everywhere = [r for d in documents for other in d["rows"] if other["name"] == row["name"] for r in _done(other)]
        runs: list[dict[str, Any]] = []
        for run in row["runs"]:
            same = [r for r in everywhere if r["seed"] == run["seed"]]
            if len(same) < len(documents):
                missing = f"done on {len(same)} of {len(documents)} captures"
                runs.append({"seed": run["seed"], "status": "failed", "reason": missing})
                continue
            kept = {key: _mean([r[key] for r in same]) for key in ("seconds", "mean", "baselines", "truth")}
            runs.append({"seed": run["seed"], "status": "done", **kept})
        rows.append({**row, "runs": runs})
    head = {key: documents[0].get(key) for key in ("preset", "settings", "jobs", "version")}
    return {"captures": [capture for d in documents for capture in d["captures"]], **head, "rows": rows}


def _mean(values: list[Any]) -> Any:
    """The mean of numbers, or of trees of numbers leaf by leaf; None where any is missing."""
    if all(isinstance(value, dict) for value in values):
        return {key: _mean([value.get(key) for value in values]) for key in values[0]}
    if any(not isinstance(value, int | float) for value in values):
        return None
    return statistics.fmean(values)


def _done(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in row["runs"] if run["status"] == "done"]


def _seeds(document: Document) -> list[int]:
    return sorted({run["seed"] for row in document["rows"] for run in row["runs"]})


def _value(mean: dict[str, Any], path: str) -> float | None:
    value: Any = mean
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _scene_seconds(run: dict[str, Any]) -> float | None:
    """Of the scene with its trunk, which it may have in common with other rows."""
    seconds = run["seconds"]
    return None if seconds["scene"] is None else seconds["scene"] + (seconds.get(TRUNK) or 0)


def _total(run: dict[str, Any]) -> float:
    return sum(seconds or 0 for seconds in run["seconds"].values())


def _spread(values: list[float | None], digits: int) -> str:
    """Mean, with the sample standard deviation of two or more."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _legend(document: Document) -> list[str]:
    true = [_value(run["truth"], "static.flicker") for row in document["rows"] for run in _done(row)][:1]
    own = f" (the true frames: {true[0]:.2f})" if true and true[0] is not None else ""
    return [
        f"Means over the held-out views; ± is the standard deviation over seeds. Preset `{document['preset']}`, "
        f"settings `{document['settings']}`, {document['jobs']} runs at once on the device, which the seconds include. "
        "Stages that rows share count in full in each, and so does the trunk: the scene up to the prior's begin.",
        "PSNR in dB. Unseen: pixels that are not co-visible. MS-SSIM unseen: of the image with the truth everywhere "
        "else. Depth error: mean relative error after one factor a view. Flicker: mean change of static pixels between "
        f"a fixed camera's views, in levels of 255{own}. Sharpness: gradient energy over that of the truth.",
    ]


def _expectations(document: Document) -> list[str]:
    lines = [_line(["comparison", "measure", "expected", "measured", "holds"]), "|---|---|--:|--:|---|"]
    for expected in EXPECTATIONS:
        if (verdict := judged(document, expected)) is not None:
            gains, holds = verdict
            wanted = f"at least {expected.least:+g}" if expected.least else "better"
            sign: Callable[[float], float] = (lambda g: -g) if expected.lower else (lambda g: g)
            measured = _spread([sign(gain) for gain in gains], 4 if abs(gains[0]) < 0.1 else 2)
            if not measured.startswith("-"):
                measured = f"+{measured}"
            names = f"{expected.better} against {expected.worse}".replace("_", " ")
            lines.append(_line([names, expected.measure, wanted, measured, "yes" if holds else "**no**"]))
    return lines if len(lines) > 2 else []


def _failures(document: Document) -> list[str]:
    failed = [
        f"- {row['name']} seed {run['seed']} failed: {run['reason']}"
        for row in document["rows"]
        for run in row["runs"]
        if run["status"] == "failed"
    ]
    return ["", *failed] if failed else []
