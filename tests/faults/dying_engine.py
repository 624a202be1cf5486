"""The stand-in engine that SIGKILLs itself at the DIE_AT-th point around an fsync or a rename."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.worker import standin

left = int(os.environ["DIE_AT"])


def point() -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def around(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        point()
        value = call(*arguments, **options)
        point()
        return value

    return wrapped


os.fsync = around(os.fsync)
Path.replace = around(Path.replace)  # type: ignore[method-assign]
standin.run_stages(Path(sys.argv[2]), 1)
