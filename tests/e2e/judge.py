"""Called in the confined child: what the two readers of user files say of one."""

from pathlib import Path
from typing import Any

from dpdy_core.errors import BadInput
from dpdy_core.ingest.capture import write_capture
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.progress import Reporter


def judge(source: Path, root: Path, config: dict[str, Any], reporter: Reporter) -> list[Any]:
    """What the check of an upload and the stage ingest say; None where they take it."""
    said: list[Any] = []
    for attempt in (lambda: inspect_input(source), lambda: write_capture(root, source, config, reporter)):
        try:
            attempt()
            said.append(None)
        except BadInput as error:
            said.append([error.detail, error.remedy])
    return said
