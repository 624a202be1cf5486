"""The child of `sandbox.confined`: gives up what it does not need, then reads the file. Torch-free."""

import errno
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from dpdy_core.ingest.confine import confine


def main(request: dict[str, Any]) -> int:
    """Do what `sandbox.confined` asked for; events, and at last the result or the problem, go to stdout."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an event
    missing = confine(**request["limits"])
    from dpdy_core.errors import BadInput, DpdyError, JobFailed  # only now may anything else be loaded
    from dpdy_core.ingest.sandbox import too_much_memory
    from dpdy_core.progress import Reporter, json_lines

    send = json_lines(out)
    reporter = Reporter(send)
    for message in missing:
        reporter.warn(f"the file is read with less protection: {message}")
    try:
        module, name = request["function"]
        arguments = [_decoded(argument, reporter) for argument in request["arguments"]]
        value = getattr(importlib.import_module(module), name)(*arguments)
        send({"event": "result", "value": value})
        return 0
    except DpdyError as error:
        problem = too_much_memory(request["limits"]["memory"]) if _is_memory(error.__cause__) else error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = JobFailed("the disk is full", "free some space and try again")
        elif error.errno == errno.EFBIG:
            problem = BadInput("a file of the capture unpacks to more than DPDY_DECODE_FILE_BYTES", "make it smaller")
        elif isinstance(error, PermissionError) and error.filename:
            problem = BadInput(f"{Path(str(error.filename)).name} may not be read ({error.strerror})", "let it be read")
        elif _is_memory(error):
            problem = too_much_memory(request["limits"]["memory"])
        else:
            traceback.print_exc()
            return 1
    except Exception as error:
        if not _is_memory(error):
            traceback.print_exc()
            return 1
        problem = too_much_memory(request["limits"]["memory"])
    send({"event": "problem", **problem.problem()})
    return 0


def _decoded(argument: dict[str, Any], reporter: Any) -> Any:
    if "path" in argument:
        return Path(argument["path"])
    return reporter if "reporter" in argument else argument["value"]


def _is_memory(error: BaseException | None) -> bool:
    """MemoryError of Python, ENOMEM or no room for a thread (EAGAIN) of FFmpeg, StsNoMem of OpenCV."""
    return (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) in (errno.ENOMEM, errno.EAGAIN)
        or (type(error).__module__ == "cv2" and getattr(error, "code", 0) == -4)
    )


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
