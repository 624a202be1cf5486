import signal

import pytest

from worker.supervisor import Outcome
from worker.verdict import judge


def problem(kind: str) -> dict[str, str]:
    return {"type": kind, "title": "T", "detail": "D", "remedy": "R"}


@pytest.mark.parametrize(
    ("code", "stop", "reported", "state", "fault"),
    [
        (0, None, None, "succeeded", None),
        (0, "cancel", None, "succeeded", None),
        (0, "yield", None, "succeeded", None),
        (0, "stall", None, "succeeded", None),
        (5, "cancel", "cancelled", "cancelled", None),
        (-9, "cancel", None, "cancelled", None),
        (5, "deadline", "cancelled", "failed", None),
        (2, None, "bad-settings", "failed", None),
        (3, None, "bad-input", "failed", None),
        (4, None, None, "failed", None),
        (4, "yield", "job-failed", "failed", None),
        (4, None, "out-of-memory", None, "out-of-memory"),
        (4, "cancel", "out-of-memory", "cancelled", None),
        (4, None, "gpu-lost", None, "gpu-lost"),
        (4, None, "storage-full", None, "storage-full"),
        (4, None, "storage-fault", None, "storage-fault"),
        (2, None, "run-busy", None, "run-busy"),
        (5, "stall", "cancelled", None, "stalled"),
        (-9, "stall", None, None, "stalled"),
        (5, "yield", "cancelled", None, None),
        (-signal.SIGKILL, "yield", None, None, None),
        (5, None, "cancelled", None, "interrupted"),
        (1, None, None, None, "attempts-exhausted"),
        (1, None, "out-of-memory", None, "attempts-exhausted"),  # it crashed after it had reported
        (130, None, None, None, "attempts-exhausted"),
        (-signal.SIGKILL, None, None, None, "attempts-exhausted"),
    ],
)
def test_each_end_is_told_apart(
    code: int, stop: str | None, reported: str | None, state: str | None, fault: str | None
) -> None:
    verdict = judge(Outcome(code, stop, 1.0), problem(reported) if reported else None)  # type: ignore[arg-type]
    assert (verdict.state, verdict.fault.type if verdict.fault else None) == (state, fault)
    assert (verdict.problem is not None) == (state == "failed")
    assert bool(verdict.reason) == (state is None)
