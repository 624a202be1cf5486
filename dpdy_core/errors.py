"""Expected failures. Each names its cause and a remedy, and maps to one exit code and one problem type."""


class DpdyError(Exception):
    """An expected failure: `type` is a stable slug, `exit_code` is the command line's (CLI, child process)."""

    type = "internal"
    title = "Internal error"
    exit_code = 4
    retryable = False

    def __init__(self, detail: str, remedy: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy

    def problem(self) -> dict[str, object]:
        """The failure as the fields of an RFC 9457 problem document."""
        return {
            "type": self.type,
            "title": self.title,
            "detail": self.detail,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }


class BadInput(DpdyError):
    """The capture cannot be used: broken file, missing image, NaN pose, a path that leaves the folder."""

    type = "bad-input"
    title = "The capture cannot be used"
    exit_code = 3


class CamerasFailed(BadInput):
    """Structure from motion did not register enough frames."""

    type = "cameras-failed"
    title = "Camera poses could not be found"


class BadSettings(DpdyError):
    """A setting is unknown, has the wrong type or contradicts the run folder."""

    type = "bad-settings"
    title = "The settings cannot be used"
    exit_code = 2


class RunBusy(BadSettings):
    """Another process works in the run folder."""

    type = "run-busy"
    title = "Another process works in the run"
    retryable = True


class JobFailed(DpdyError):
    """The method itself failed on a usable capture (diverged, missing model weights)."""

    type = "job-failed"
    title = "The job failed"


class OutOfMemory(JobFailed):
    """The device ran out of memory."""

    type = "out-of-memory"
    title = "Out of memory"
    retryable = True


class GpuLost(JobFailed):
    """The GPU failed or went away: another machine, or this one after a restart, can go on."""

    type = "gpu-lost"
    title = "The GPU was lost"
    retryable = True


class StorageFull(JobFailed):
    """The disk of the run is full, or over its quota."""

    type = "storage-full"
    title = "The storage is full"
    retryable = True


class StorageFault(JobFailed):
    """The disk of the run cannot be read or written."""

    type = "storage-fault"
    title = "The storage does not work"
    retryable = True


class Cancelled(DpdyError):
    """Stopped on request, after a checkpoint: calling again continues."""

    type = "cancelled"
    title = "Cancelled"
    exit_code = 5
    retryable = True
