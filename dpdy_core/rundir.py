"""The run folder: the only module that knows file names. Atomic writes, stage records, fingerprints, manifest."""

import hashlib
import json
import mimetypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpdy_core.errors import BadSettings
from dpdy_core.stages import STAGES

if TYPE_CHECKING:
    from dpdy_core.config import RunConfig


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to disk, rename it into place and flush that too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(temporary)
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Have the disk hold what a file, or the list of a folder's files, is now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically. NaN and infinity are refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda partial: _write_text(partial, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """The JSON document in `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def folder_atomic(folder: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `folder` when the block ends well, and vanishes otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_by_a_kill in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        yield partial
        partial.chmod(0o755)
        for path in (*partial.rglob("*"), partial):
            if not path.is_symlink():
                _flush(path)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_hash(config: "RunConfig") -> str:
    """16 hex digits that name all settings of a run."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run folder and the record of its stages."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    @property
    def events_file(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def capture(self) -> Path:
        """The canonical capture: transforms.json, images/, depth/, motion_masks/, report.json."""
        return self.root / "capture"

    @property
    def transforms_file(self) -> Path:
        return self.capture / "transforms.json"

    @property
    def capture_report_file(self) -> Path:
        return self.capture / "report.json"

    @property
    def camera_paths(self) -> Path:
        """User-given nerfstudio camera-path JSON files."""
        return self.root / "camera_paths"

    @property
    def prior(self) -> Path:
        return self.root / "prior"

    @property
    def scene(self) -> Path:
        return self.root / "scene"

    @property
    def renders(self) -> Path:
        return self.root / "renders"

    @property
    def previews(self) -> Path:
        return self.renders / "previews"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def metrics_file(self) -> Path:
        return self.evaluation / "metrics.json"

    @property
    def report_file(self) -> Path:
        return self.root / "report.html"

    @property
    def manifest_file(self) -> Path:
        return self.root / "manifest.json"

    def remove_partials(self) -> None:
        """Remove what a killed process left half-written. Only for who holds the run's lock."""
        for path in list(self.root.rglob(".*")):
            if ".partial" in path.name:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    # ---- config

    def write_config(self, config: "RunConfig", source: Path, environment: dict[str, Any]) -> None:
        """Record every setting, the input's place and the environment (versions, device, backend)."""
        write_json(
            self.config_file,
            {"settings": config.model_dump(mode="json"), "source": str(source), "environment": environment},
        )

    def read_config(self) -> "tuple[RunConfig, Path]":
        """The settings and the input's place of this run."""
        from dpdy_core.config import RunConfig  # pydantic takes longer to load than many a look into a run folder

        document = read_json(self.config_file)
        return RunConfig.model_validate(document["settings"]), Path(document["source"])

    def open_config(self, config: "RunConfig") -> None:
        """Raise BadSettings if the folder holds a run made with other settings."""
        made_with, _ = self.read_config()
        if made_with == config:
            return
        changed = sorted(_differences(made_with.model_dump(mode="json"), config.model_dump(mode="json")))
        raise BadSettings(
            f"{self.root} holds a run made with other settings: {', '.join(changed)}",
            "give the same settings to resume it, or another --out",
        )

    # ---- stages

    def _record_file(self, stage: str) -> Path:
        return self.root / "stages" / f"{stage}.json"

    def fingerprint(self, stage: str, config: "RunConfig", input_hash: str) -> str:
        """Hash of all that decides the result of `stage`: its section, seed, and the stages before it."""
        document: list[Any] = [input_hash, config.seed]
        for earlier in STAGES[: STAGES.index(stage) + 1]:
            document.append(getattr(config, earlier).model_dump(mode="json"))
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def stage_record(self, stage: str) -> dict[str, Any] | None:
        """What was recorded when `stage` ended (fingerprint, seconds, peak memory), or None."""
        path = self._record_file(stage)
        return read_json(path) if path.exists() else None

    def is_done(self, stage: str, fingerprint: str) -> bool:
        record = self.stage_record(stage)
        return record is not None and record["fingerprint"] == fingerprint

    def mark_done(self, stage: str, fingerprint: str, **numbers: Any) -> None:
        write_json(self._record_file(stage), {"fingerprint": fingerprint, **numbers})

    # ---- manifest

    def write_manifest(self, attempt: int) -> list[dict[str, Any]]:
        """List every finished file: path, size, sha256, media type, stage, attempt."""
        known = {}
        if self.manifest_file.exists():
            known = {entry["path"]: entry for entry in read_json(self.manifest_file)["files"]}
        entries = []
        for path in sorted(self.root.rglob("*")):
            relative = path.relative_to(self.root).as_posix()
            if (
                not path.is_file()
                or path == self.manifest_file
                or any(part.startswith(".") for part in relative.split("/"))
            ):
                continue
            digest = sha256_file(path)
            before = known.get(relative)
            entries.append(
                {
                    "path": relative,
                    "size": path.stat().st_size,
                    "sha256": digest,
                    "media_type": mimetypes.guess_type(path.name)[0] or "application/octet-stream",
                    "stage": _stage_of(relative),
                    "attempt": before["attempt"] if before and before["sha256"] == digest else attempt,
                }
            )
        write_json(self.manifest_file, {"files": entries})
        return entries


def _stage_of(relative: str) -> str | None:
    top, _, rest = relative.partition("/")
    if top == "capture":
        return {"depth": "depth", "refined_masks": "depth", "motion_masks": "masks"}.get(
            rest.partition("/")[0], "ingest"
        )
    if top == "stages":
        return Path(rest).stem
    return {"prior": "prior", "scene": "scene", "renders": "render", "evaluation": "evaluate"}.get(top)


def _differences(left: Any, right: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left.keys() | right.keys():
            yield from _differences(left.get(key), right.get(key), f"{prefix}.{key}" if prefix else key)
    elif left != right:
        yield prefix
