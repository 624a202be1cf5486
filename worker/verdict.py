"""What the end of a child means: a terminal state, or a fault after which another attempt follows."""

from dataclasses import dataclass
from typing import Any

from api.jobs import faults, states
from api.jobs.faults import Fault
from worker.supervisor import Outcome

EXPECTED_FAILURES = (2, 3, 4)  # exit codes with which the engine says what is wrong
STOPPED = 5
Problem = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Either `state` (with a `problem` unless it succeeded) or none; then `fault`, None if the worker only yielded."""

    state: str | None = None
    problem: Problem | None = None
    fault: Fault | None = None
    reason: str = ""


def judge(outcome: Outcome, problem: Problem | None) -> Verdict:
    """What a child that ended so, and reported this problem, leaves to do."""
    if outcome.code == 0:
        return Verdict(states.SUCCEEDED)
    if outcome.stop == "cancel":
        return Verdict(states.CANCELLED)
    if outcome.stop == "deadline":
        detail = f"it was stopped after {outcome.seconds:.0f} s of this attempt"
        remedy = "retry goes on from the last checkpoint without a deadline"
        return Verdict(states.FAILED, _problem("run-deadline", "The job was not finished in time", detail, remedy))
    if outcome.stop == "stall":
        return Verdict(fault=faults.STALLED, reason="the run made no progress and was stopped")
    if outcome.stop == "full":
        return Verdict(fault=faults.STORAGE_FULL, reason="the disk is full up to what the database needs")
    reported = faults.REPORTED.get(str((problem or {}).get("type")))
    if outcome.code in EXPECTED_FAILURES and problem is not None and reported is not None:
        return Verdict(fault=reported, reason=str(problem.get("detail")))
    if outcome.code in EXPECTED_FAILURES:
        unsaid = _problem("job-failed", "The job failed", "the run failed without saying why", "read its log")
        return Verdict(states.FAILED, problem or unsaid)
    if outcome.stop == "yield":
        return Verdict(reason="its worker stopped and gave it back")
    if outcome.code == STOPPED:
        return Verdict(fault=faults.INTERRUPTED, reason="the run was stopped by a signal from outside")
    return Verdict(fault=faults.CRASHED, reason=outcome.crash)


def _problem(type: str, title: str, detail: str, remedy: str) -> Problem:
    return {"type": type, "title": title, "detail": detail, "remedy": remedy, "retryable": True}
