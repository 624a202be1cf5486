"""JSON documents of captures from strangers: read with limits, numbers checked. Torch-free."""

import json
import math
from pathlib import Path
from typing import Any

from dpdy_core.errors import BadInput

MAX_JSON_BYTES = 64 * 2**20


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises BadInput."""
    document = _read(path)
    if not isinstance(document, dict):
        raise BadInput(f"{path.name} is not a JSON object", "write it as the format's own tools do")
    return document


def read_list(path: Path) -> list[Any]:
    """The JSON list in `path`. Raises BadInput."""
    entries = _read(path)
    if not isinstance(entries, list):
        raise BadInput(f"{path.name} is not a JSON list", "write it as the format's own tools do")
    return entries


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BadInput(f"{path.name} is larger than {MAX_JSON_BYTES // 2**20} MiB", "remove what is not needed")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name} is not valid JSON ({error})", "write it again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal keys counts: there must be one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise BadInput(f"an object has the key {_short(next(k for k in keys if keys.count(k) > 1))} twice", "keep one")
    return made


def number(value: Any, key: str, where: str) -> float:
    """`value` as a finite float, or BadInput."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise BadInput(f"{key} of {where} is {_short(value)}, not a finite number", f"correct {key}")
    return float(value)


def numbers(value: Any, count: int, key: str, where: str) -> list[float]:
    """`value` as `count` finite floats, or BadInput."""
    if not isinstance(value, list) or len(value) != count:
        raise BadInput(f"{key} of {where} is {_short(value)}, not a list of {count} numbers", f"correct {key}")
    return [number(item, key, where) for item in value]


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _short(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:77]}..."
