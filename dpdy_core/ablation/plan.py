"""Which runs an ablation needs, and which of their stages they can share."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpdy_core.ablation.rows import NO_VIDEOS, Row
from dpdy_core.config import STAGES, RunConfig
from dpdy_core.presets import resolve
from dpdy_core.rundir import RunDir, config_hash, folder_atomic, read_json, write_json
from dpdy_core.stages import TRUNK

SHARED = ("depth", "prior")  # runs that agree up to one of these stages compute it once


@dataclass(frozen=True)
class Trial:
    """One row with one seed. Rows whose settings come to the same share one folder."""

    row: Row
    seed: int
    config: RunConfig
    folder: Path


def make_trials(
    out: Path, rows: Sequence[Row], seeds: Sequence[int], every_seed: bool, preset: str, settings: Mapping[str, Any]
) -> list[Trial]:
    """The trials of `rows`: repeated rows (or, if `every_seed`, all) with all `seeds`, the others with the first.

    A row's own settings win over `settings`. Trials come seed by seed. Raises BadSettings for an unknown setting.
    """
    trials: list[Trial] = []
    folders: dict[str, Path] = {}
    offered = set(_keys(RunConfig().model_dump()))
    for seed in seeds:
        for row in rows:
            if seed == seeds[0] or row.repeated or every_seed:
                own = {key: value for key, value in row.settings.items() if key in offered}
                if row.settings and not own:
                    continue
                config = resolve(preset, {**NO_VIDEOS, **settings, **own, "seed": seed})
                folder = folders.setdefault(config_hash(config), out / "runs" / f"{row.name}-{seed}")
                trials.append(Trial(row, seed, config, folder))
    return trials


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def shared_folder(out: Path, config: RunConfig, stage: str) -> Path:
    """Where the stages up to `stage` of all runs that agree so far are computed."""
    return out / "shared" / f"{stage}-{RunDir(out).fingerprint(stage, config, '')[:16]}"


def adopt(run: RunDir, donor: RunDir, config: RunConfig, stage: str) -> None:
    """Give `run`, if it has not come so far itself, the donor's finished stages up to `stage`, as hard links.

    Stages replace files and never write into them, so that the links are safe.
    """
    if has(run, config, stage) or not has(donor, config, stage):
        return
    for source, target in ((donor.capture, run.capture), (donor.prior, run.prior)):
        if source.exists():
            with folder_atomic(target) as partial:
                shutil.copytree(source, partial, copy_function=_link, dirs_exist_ok=True)
    for name in STAGES[: STAGES.index(stage) + 1]:
        write_json(run.root / "stages" / f"{name}.json", donor.stage_record(name))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def outcome(trial: Trial, failures: Mapping[Path, str]) -> dict[str, Any]:
    """What became of a trial, for `ablation.json`: its status, and all numbers if it is done."""
    run = RunDir(trial.folder)
    entry = {"seed": trial.seed, "run": f"runs/{trial.folder.name}", "config_hash": config_hash(trial.config)}
    if trial.folder in failures:
        return {**entry, "status": "failed", "reason": failures[trial.folder]}
    if not is_done(trial):
        return {**entry, "status": "pending"}
    records = {stage: run.stage_record(stage) or {} for stage in STAGES}
    seconds = {stage: record.get("seconds") for stage, record in records.items()}
    metrics = read_json(run.metrics_file)
    return {
        **entry,
        "status": "done",
        "device": read_json(run.config_file)["environment"].get("device"),
        "seconds": {**seconds, TRUNK: _seconds_of_trunk(run)},
        "peak_memory_bytes": {stage: record.get("peak_memory_bytes") for stage, record in records.items()},
        "resolution": metrics["resolution"],
        "views": len(metrics["views"]),
        "mean": metrics["mean"],
        "baselines": metrics["baselines"],
        "truth": metrics["truth"],
        "notes": metrics["notes"],
    }


def _seconds_of_trunk(run: RunDir) -> float:
    """What the first part of the run's scene took elsewhere."""
    scene, trunk = run.stage_record("scene"), run.stage_record(TRUNK)
    adopted = scene is not None and trunk is not None and trunk["fingerprint"] == scene["fingerprint"]
    return float(trunk["seconds"]) if adopted and trunk else 0.0


def is_done(trial: Trial) -> bool:
    """Whether the run has been scored with these settings."""
    return has(RunDir(trial.folder), trial.config, "evaluate")


def has(run: RunDir, config: RunConfig, stage: str) -> bool:
    """Whether `run` has finished `stage` with what `config` says up to there."""
    record = run.stage_record(stage)
    return record is not None and run.is_done(stage, run.fingerprint(stage, config, record["input_hash"]))
