"""How an attempt can end without a result, what that means for the job, and how often it is tried again.

The `type` of a fault is what the attempt's row says and, once no attempt is left, the type of the job's problem.
"""

from dataclasses import dataclass
from typing import Literal

from api.settings import Settings

LONGEST_PAUSE = 300.0
YIELDED = "yielded"  # the worker was told to stop and gave the job back: no fault

Blame = Literal["job", "size", "machine"]


@dataclass(frozen=True)
class Fault:
    """Why an attempt ended without a result.

    `blame` sets the limit: `job` may crash `max_attempts` times, `size` (too large or too slow for the machine) has one
    second chance, `machine` is not the user's fault and free up to `max_interruptions`.
    """

    type: str
    title: str
    remedy: str
    blame: Blame
    pauses: bool = False  # what was missing may be there later: wait before the next attempt

    def limit(self, settings: Settings) -> int:
        """The attempts that may end so until the job fails."""
        return {"job": settings.max_attempts, "size": 2, "machine": settings.max_interruptions}[self.blame]

    def pause(self, times: int, settings: Settings) -> float:
        """Seconds to wait after the fault has happened for the `times`-th time."""
        return min(settings.retry_seconds * 2 ** (times - 1), LONGEST_PAUSE) if self.pauses else 0.0


CRASHED = Fault(
    "attempts-exhausted",
    "The job crashed too often",
    "read its log; retry goes on from the last checkpoint",
    "job",
)
STALLED = Fault(
    "stalled",
    "The run stopped making progress",
    "read its log; retry goes on from the last checkpoint",
    "size",
)
OUT_OF_MEMORY = Fault(
    "out-of-memory",
    "Out of memory",
    "submit it with a lower scene.rays, scene.sds.resolution or prior.batch_size, or use a larger GPU",
    "size",
    pauses=True,
)
GPU_LOST = Fault("gpu-lost", "The GPU was lost", "check the driver and the machine, then retry", "machine", pauses=True)
STORAGE_FULL = Fault("storage-full", "The storage is full", "free some space, then retry", "machine", pauses=True)
STORAGE_FAULT = Fault(
    "storage-fault", "The storage does not work", "check the disk of the runs, then retry", "machine", pauses=True
)
RUN_BUSY = Fault(
    "run-busy", "Another process works in the run", "stop it, then retry goes on from there", "machine", pauses=True
)
INTERRUPTED = Fault("interrupted", "The run was stopped from outside", "retry goes on from there", "machine")
WORKER_LOST = Fault(
    "worker-lost", "Its workers were lost", "look at the workers' logs, then retry goes on from there", "machine"
)
VERSION = Fault(
    "version-mismatch",
    "No worker knows the job's settings",
    "bring all workers to the version of the API, then retry",
    "machine",
    pauses=True,
)
NOT_STARTED = Fault("not-started", "The run could not be started", "look at the worker's log, then retry", "job")

REPORTED = {fault.type: fault for fault in (OUT_OF_MEMORY, GPU_LOST, STORAGE_FULL, STORAGE_FAULT, RUN_BUSY)}
ALL = {f.type: f for f in (*REPORTED.values(), CRASHED, STALLED, INTERRUPTED, WORKER_LOST, VERSION, NOT_STARTED)}
