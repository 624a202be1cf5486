"""When frames were taken, as far as their names tell. Torch-free."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import PurePosixPath

import numpy as np

from dpdy_core.ingest.images import natural_key

_NUMBERED = re.compile(r"(.*?)([0-9]+(?:\.[0-9]+)?)([^0-9]*)", re.DOTALL)


def times_of_names(names: Sequence[str]) -> np.ndarray:
    """(T,) in [0, 1] for T >= 2 file names, in any order.

    Names that differ in one number alone (a time stamp or the number of the frame) tell the moments, gaps included;
    folders then are cameras that ran together. Other names only tell the order.
    """
    ranks = {name: rank for rank, name in enumerate(sorted(names, key=natural_key))}
    numbers = _numbers(sorted(names, key=natural_key))
    if numbers is None:
        return np.array([ranks[name] / (len(names) - 1) for name in names])
    low, high = min(numbers.values()), max(numbers.values())
    return np.array([float((numbers[name] - low) / (high - low)) for name in names])


def _numbers(ordered: Sequence[str]) -> dict[str, Decimal] | None:
    """The number in each name, or None if the names differ in more or the numbers do not rise within a folder."""
    numbers: dict[str, Decimal] = {}
    latest: dict[str, Decimal] = {}
    around: set[tuple[str, str]] = set()
    for name in ordered:
        path = PurePosixPath(name)
        match = _NUMBERED.fullmatch(path.stem)
        if match is None:
            return None
        folder, number = str(path.parent), Decimal(match[2])
        around.add((match[1], match[3]))
        if len(around) > 1 or number <= latest.get(folder, Decimal(-1)):
            return None
        numbers[name] = latest[folder] = number
    return numbers if len(set(numbers.values())) > 1 else None
