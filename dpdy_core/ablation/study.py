"""One ablation: what rows share first, then all rows; whatever is finished is kept."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dpdy_core.ablation.children import Work, run_all
from dpdy_core.ablation.plan import SHARED, Trial, adopt, has, is_done, outcome, shared_folder
from dpdy_core.ablation.strip import write_strip
from dpdy_core.ablation.table import write_tables
from dpdy_core.ablation.trunk import adopt_trunk, find_trunks, has_passed
from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.rundir import RunDir, read_json
from dpdy_core.stages import TRUNK

Say = Callable[[str], None]


class Study:
    """The trials of one capture in the folder `out`."""

    def __init__(self, capture: Path, out: Path, trials: list[Trial], head: dict[str, Any]) -> None:
        """`head`: what `ablation.json` says besides the rows. Raises if `out` holds something else."""
        self.capture, self.out, self.trials = capture.resolve(), out, trials
        self.head = {"captures": [str(self.capture)], **head}
        self.failures: dict[Path, str] = {}
        self.trunks = find_trunks(out, trials)
        if not capture.exists():
            raise BadInput(f"{capture} does not exist", "check the path")
        if out.exists() and any(out.iterdir()) and not (out / "ablation.json").exists():
            raise BadSettings(f"{out} is not empty and not an ablation", "give another --out")
        if (out / "ablation.json").exists() and read_json(out / "ablation.json")["captures"] != [str(self.capture)]:
            raise BadSettings(f"{out} holds an ablation of another capture", "give another --out")

    def run(self, jobs: int, check: Callable[[], None], say: Say) -> dict[str, Any]:
        """Run what is not finished, `jobs` processes at once, and write the tables; the document of `ablation.json`."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.write()
        todo = {trial.folder: trial for trial in self.trials if not is_done(trial)}
        for trial in self.trials:
            if trial.folder not in todo:
                say(f"{trial.row.name} seed {trial.seed}: already done")
        for place, stage in enumerate(SHARED):
            self._share(list(todo.values()), SHARED[:place], stage, jobs, check, say)
        self._share_trunks(list(todo.values()), jobs, check, say)
        left = [trial for trial in todo.values() if trial.folder not in self.failures]
        self._run_rows(left, jobs, check, say)
        return self.write()

    def _share(
        self, trials: list[Trial], before: tuple[str, ...], stage: str, jobs: int, check: Callable[[], None], say: Say
    ) -> None:
        """Compute the stages up to `stage` once for all trials that agree on them."""
        owners: dict[Path, list[Trial]] = {}
        for trial in trials:
            if trial.folder not in self.failures and not has(RunDir(trial.folder), trial.config, stage):
                owners.setdefault(shared_folder(self.out, trial.config, stage), []).append(trial)
        work = []
        for folder, sharing in owners.items():
            run = RunDir(folder)
            if len(sharing) > 1 and not has(run, sharing[0].config, stage):  # what nobody shares a row does itself
                self._prepare(run, sharing[0].config, before)
                work.append(Work(run, stage))
        self._run_shared(work, owners, jobs, check, say)

    def _share_trunks(self, trials: list[Trial], jobs: int, check: Callable[[], None], say: Say) -> None:
        """Optimise once what the scenes of several trials have in common."""
        owners: dict[Path, list[Trial]] = {}
        for trial in trials:
            trunk = self.trunks.get(trial.folder)
            if trunk is None or trial.folder in self.failures:
                continue
            if not has_passed(RunDir(trial.folder), trial.config, trunk.step):
                owners.setdefault(trunk.run.root, []).append(trial)
        work = []
        for sharing in owners.values():
            trunk = self.trunks[sharing[0].folder]
            if len(sharing) > 1 and not trunk.is_done():
                self._prepare(trunk.run, trunk.config, ("depth",))
                work.append(Work(trunk.run, TRUNK))
        self._run_shared(work, owners, jobs, check, say)

    def _run_shared(
        self, work: list[Work], owners: dict[Path, list[Trial]], jobs: int, check: Callable[[], None], say: Say
    ) -> None:
        for one, reason in run_all(work, jobs, check):
            names = ", ".join(dict.fromkeys(trial.row.name for trial in owners[one.run.root]))
            say(f"shared {one.until} of {names}: {f'failed: {reason}' if reason else 'done'}")
            if reason:
                self.failures |= {trial.folder: reason for trial in owners[one.run.root]}

    def _run_rows(self, trials: list[Trial], jobs: int, check: Callable[[], None], say: Say) -> None:
        started = time.monotonic()
        by_folder = {trial.folder: trial for trial in trials}
        work = [Work(RunDir(t.folder), "evaluate", partial(self._prepare_row, t)) for t in trials]
        for number, (one, reason) in enumerate(run_all(work, jobs, check), start=1):
            trial = by_folder[one.run.root]
            if reason:
                self.failures[trial.folder] = reason
            self.write()
            eta = (time.monotonic() - started) / number * (len(work) - number)
            say(f"{_told(trial, reason)} ({number}/{len(work)}, eta {int(eta) // 60}:{int(eta) % 60:02d})")

    def _prepare_row(self, trial: Trial) -> None:
        run = RunDir(trial.folder)
        self._prepare(run, trial.config, SHARED)
        if trunk := self.trunks.get(trial.folder):
            adopt_trunk(run, trial.config, trunk)

    def _prepare(self, run: RunDir, config: RunConfig, shared: tuple[str, ...]) -> None:
        """Write the run's config, and take over the stages that are finished elsewhere."""
        if not run.config_file.exists() or run.read_config()[0] != config:
            run.write_config(config, self.capture, {})
        for stage in reversed(shared):
            adopt(run, RunDir(shared_folder(self.out, config, stage)), config, stage)

    def write(self) -> dict[str, Any]:
        """Write `ablation.json`, `ablation.md` and, once there are pictures, `strip.png`."""
        rows: dict[str, dict[str, Any]] = {}
        for trial in self.trials:
            row = rows.setdefault(
                trial.row.name,
                {"name": trial.row.name, "label": trial.row.label, "settings": trial.row.settings, "runs": []},
            )
            row["runs"].append(outcome(trial, self.failures))
        document = {**self.head, "rows": list(rows.values())}
        write_tables(self.out, document)
        first = [t for t in self.trials if t.seed == self.trials[0].seed and is_done(t)]
        write_strip(self.out / "strip.png", [(t.row.label, RunDir(t.folder).evaluation / "images") for t in first])
        return document


def _told(trial: Trial, reason: str | None) -> str:
    name = f"{trial.row.name} seed {trial.seed}"
    if reason:
        return f"{name}: failed: {reason}"
    quality = read_json(RunDir(trial.folder).metrics_file)["mean"]["psnr"]
    return f"{name}: done" + (f", {quality:.2f} dB" if quality is not None else "")
