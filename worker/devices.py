"""What this machine computes on, found without torch; and the seat: one job per GPU, whoever runs on the machine."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
LOCKS = Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver names it."""

    index: str
    uuid: str
    name: str
    memory_mib: int


def list_gpus() -> list[Gpu]:
    """The GPUs that the driver names and that CUDA_VISIBLE_DEVICES, if set, leaves to us."""
    if not shutil.which(QUERY[0]):
        return []
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []  # a driver that does not answer has no GPU to offer
    gpus = []
    for line in answer.splitlines():
        with suppress(ValueError):
            index, uuid, rest = (part.strip() for part in line.split(",", 2))
            name, memory = rest.rsplit(",", 1)
            gpus.append(Gpu(index, uuid, name.strip(), int(memory)))
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    if ours is None:
        return gpus
    named = [word.strip() for word in ours.split(",") if word.strip()]
    return [gpu for gpu in gpus if any(word == gpu.index or gpu.uuid.startswith(word) for word in named)]


def describe(gpus: list[Gpu]) -> list[dict[str, Any]]:
    """The devices as `/v1/info` shows them: the GPUs, or else the processor."""
    if gpus:
        return [{"type": "cuda", "name": gpu.name, "memory_mib": gpu.memory_mib} for gpu in gpus]
    return [{"type": "cpu", "name": f"{os.cpu_count()} cores", "memory_mib": None}]


@dataclass(frozen=True)
class Seat:
    """Where one attempt computes. The child inherits `lock`: the seat is free when both processes are gone."""

    environment: dict[str, str]
    lock: int | None = None

    @property
    def keep_open(self) -> tuple[int, ...]:
        return () if self.lock is None else (self.lock,)

    @property
    def device(self) -> str:
        return "cpu" if self.lock is None else "cuda"


@contextmanager
def take_seat(gpus: list[Gpu]) -> Iterator[Seat | None]:
    """A seat at one of the GPUs for as long as the block lasts; None if others have them all. Without GPUs all sit."""
    if not gpus:
        yield Seat({})
        return
    for gpu in gpus:
        lock = os.open(LOCKS / f"dpdy-{gpu.uuid}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        try:
            yield Seat({"CUDA_VISIBLE_DEVICES": gpu.uuid, "DPDY_GPU": gpu.uuid}, lock)
        finally:
            os.close(lock)
        return
    yield None
