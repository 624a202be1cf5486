"""The drill as a whole: check after check, each with its result."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from api.db.session import Sessions
from api.settings import Settings
from worker.drill.checks import CHECKS, Check
from worker.drill.site import Failed, Site, Skipped, site


@dataclass(frozen=True)
class Result:
    """`fault`: its number in docs/reliability.md; `detail`: what was measured, or what is wrong."""

    check: str
    fault: str
    result: Literal["passed", "failed", "skipped"]
    seconds: float
    detail: str


def drill(settings: Settings, sessions: Sessions) -> Iterator[Result]:
    """Do all checks, one after the other."""
    with site(settings, sessions) as made:
        for check, fault in CHECKS:
            yield _one(made, check, fault)


def _one(made: Site, check: Check, fault: str) -> Result:
    began = time.monotonic()
    result: Literal["passed", "failed", "skipped"] = "passed"
    try:
        detail = check(made)
    except Skipped as skipped:
        result, detail = "skipped", str(skipped)
    except Failed as failed:
        result, detail = "failed", str(failed)
    except Exception as error:  # the installation answered what nobody foresaw: the other checks still count
        result, detail = "failed", f"{type(error).__name__}: {error}"
    return Result(check.__name__.replace("_", " "), fault, result, round(time.monotonic() - began, 1), detail)
