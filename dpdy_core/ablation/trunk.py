"""The trunk: the scene up to the step at which the prior begins, shared by rows that differ only in the prior."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpdy_core.ablation.plan import Trial, has
from dpdy_core.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from dpdy_core.config import PriorConfig, RefinementConfig, RunConfig, SdsConfig, VideoSdsConfig
from dpdy_core.optimise.checkpoint import scene_identity
from dpdy_core.optimise.schedule import first_step, prior_begins
from dpdy_core.rundir import RunDir
from dpdy_core.stages import TRUNK


@dataclass(frozen=True)
class Trunk:
    """The optimisation up to `step`, in a run folder of its own; `config` has nothing in it that it does not use."""

    run: RunDir
    config: RunConfig
    step: int

    def is_done(self) -> bool:
        """Whether its last checkpoint is there."""
        return self.run.stage_record(TRUNK) is not None and self.end(self.run) is not None

    def end(self, of: RunDir) -> Checkpoint | None:
        """Its last checkpoint, if it is there and the frames of `of` lead to it."""
        if not of.transforms_file.exists():
            return None
        newest = newest_checkpoint(self.run.scene, scene_identity(of, self.config))
        return newest if newest is not None and newest.step == self.step else None


def find_trunks(out: Path, trials: Sequence[Trial]) -> dict[Path, Trunk]:
    """The trunks of trials, by their folders. Trials with equal trunks get the same one.

    One without a prior could leave any trunk that agrees with it: it gets the one that most have.
    """
    begins: defaultdict[str, Counter[float]] = defaultdict(Counter)
    for trial in trials:
        if (begin := prior_begins(trial.config.scene)) is not None:
            begins[_key(trunk_config(trial.config, 0.0))][begin] += 1
    found = {}
    for trial in trials:
        own = prior_begins(trial.config.scene)
        common = begins[_key(trunk_config(trial.config, 0.0))].most_common(1)
        begin = own if own is not None else common[0][0] if common else 0.0
        config = trunk_config(trial.config, begin)
        step = first_step(begin, config.scene.steps)
        if 0 < step < config.scene.steps:
            found[trial.folder] = Trunk(RunDir(out / "shared" / f"{TRUNK}-{_key(config)}"), config, step)
    return found


def trunk_config(config: RunConfig, begin: float) -> RunConfig:
    """`config` with a prior that begins at `begin`, and without all that counts only from then on."""
    seen = config.scene.novel_rays > 0  # these are drawn in views of the distillation's size
    parts = {
        "sds": SdsConfig(begin=begin, resolution=config.scene.sds.resolution) if seen else SdsConfig(begin=begin),
        "video_sds": VideoSdsConfig(enabled=False),
        "refinement": RefinementConfig(enabled=False),
    }
    return config.model_copy(update={"prior": PriorConfig(), "scene": config.scene.model_copy(update=parts)})


def _key(config: RunConfig) -> str:
    return RunDir(Path()).fingerprint("scene", config, "")[:16]


def has_passed(run: RunDir, config: RunConfig, step: int) -> bool:
    """Whether `run` has optimised its scene up to `step` or further."""
    if has(run, config, "scene"):
        return True
    if not run.transforms_file.exists():
        return False
    own = newest_checkpoint(run.scene, scene_identity(run, config))
    return own is not None and own.step >= step


def adopt_trunk(run: RunDir, config: RunConfig, trunk: Trunk) -> None:
    """Give `run`, if it has not come so far itself, the trunk's last checkpoint as its own, and note what it took."""
    record, end = trunk.run.stage_record(TRUNK), trunk.end(run)
    if record is None or end is None or has_passed(run, config, trunk.step):
        return
    fingerprint = run.fingerprint("scene", config, record["input_hash"])
    run.mark_done(TRUNK, fingerprint, input_hash=record["input_hash"], seconds=record["seconds"])
    save_checkpoint(run.scene, end.step, {**end.header, "identity": scene_identity(run, config)}, end.tensors)
