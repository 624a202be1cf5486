"""Faults of the machine told apart from faults of the job, by what torch and the system say. Torch-free."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from dpdy_core.errors import DpdyError, GpuLost, OutOfMemory, StorageFault, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.EROFS, errno.ENXIO, errno.ESTALE)
_SMALLER = "lower scene.rays, scene.sds.resolution, prior.batch_size or render.chunk, or use a larger GPU"
# CUDA's words (cudaGetErrorString) where the device or the driver is at fault; an illegal access is the program's own
_GPU_LOST = re.compile(
    r"no CUDA-capable device|No CUDA GPUs are available|CUDA-capable device\(s\) is/are busy"
    r"|device is (lost|unavailable)|fallen off the bus"
    r"|uncorrectable (ECC|NVLink) error|hardware stack error|unspecified launch failure|driver shutting down"
    r"|CUDA driver (initialization failed|version is insufficient)|initialization error|device not ready"
    r"|unknown error|system not yet initialized|failed to initialize NVML|CUDA unknown error",
    re.IGNORECASE,
)
_GPU_MEMORY = re.compile(
    r"(CUDA|CUBLAS|cuDNN|NCCL)\S* .*(out of memory|ALLOC_FAILED)|CUDA out of memory", re.IGNORECASE
)


@contextmanager
def faults_told_apart() -> Iterator[None]:
    """Raise what is known of an unexpected error as its DpdyError; all else passes as it is and counts as a crash."""
    try:
        yield
    except DpdyError:
        raise
    except Exception as error:
        known = tell(error)
        if known is None:
            raise
        raise known from error


def tell(error: BaseException) -> DpdyError | None:
    """OutOfMemory, GpuLost, StorageFull or StorageFault, or None for an error of another kind."""
    text = str(error)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return OutOfMemory("the machine ran out of memory", "use a smaller capture, or a machine with more memory")
    if isinstance(error, OSError):
        return _of_storage(error.errno, text)
    if found := re.search(r"\(os error (\d+)\)", text):  # safetensors hands the system's error on as text
        return _of_storage(int(found[1]), text)
    if not isinstance(error, RuntimeError):
        return None
    if type(error).__name__ == "OutOfMemoryError" or _GPU_MEMORY.search(text):
        return OutOfMemory(f"the GPU ran out of memory: {_first_line(text)}", _SMALLER)
    if ("CUDA" in text or "NVML" in text or type(error).__name__ == "AcceleratorError") and _GPU_LOST.search(text):
        return GpuLost(f"the GPU does not work any more: {_first_line(text)}", "retry goes on from the last checkpoint")
    return None


def _of_storage(number: int | None, text: str) -> DpdyError | None:
    if number in _FULL:
        return StorageFull(f"the disk is full: {text}", "free some space; retry goes on from the last checkpoint")
    if number in _BROKEN:
        return StorageFault(f"the disk does not work: {text}", "check it; retry goes on from the last checkpoint")
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
