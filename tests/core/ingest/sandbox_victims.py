"""What a hostile file might make the decoder do; called inside the child."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dpdy_core.errors import BadInput
from dpdy_core.progress import Reporter


def double(value: Any, path: Path, reporter: Reporter) -> list[Any]:
    reporter.step(1, 2)
    reporter.warn("careful")
    reporter.step(2, 2)
    return [value, str(path)]


def refuse() -> None:
    raise BadInput("it is green", "paint it red")


def attempts() -> dict[str, str]:
    """What each forbidden thing answers."""
    tries = {
        "inet socket": lambda: socket.socket(socket.AF_INET),
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "program": lambda: subprocess.run(["true"], check=True),
        "many files": lambda: [Path("/dev/null").open() for _ in range(1000)],  # noqa: SIM115
    }
    said = {}
    for name, attempt in tries.items():
        try:
            attempt()
            said[name] = "done"
        except OSError as error:
            said[name] = type(error).__name__
    return said


def write_and_wait(mark: Path) -> None:
    Path(tempfile.mkdtemp(), "left").write_bytes(bytes(1000))
    child = os.fork()
    (mark / f"{os.getpid()}").touch()
    if child:
        (mark / f"{child}").touch()
    time.sleep(600)


def write_much(folder: Path) -> None:
    with (folder / "big").open("wb") as file:
        for _ in range(100):
            file.write(bytes(2**20))


def allocate() -> int:
    return int(np.ones(2**29).sum())


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def spin() -> None:
    while True:
        pass


def pretend() -> str:
    print('{"event": "result", "value": "forged"}', flush=True)  # noqa: T201
    return "true"


def stumble() -> None:
    raise KeyError("a bug")


def read(path: Path) -> str:
    return path.read_text()
