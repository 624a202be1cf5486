import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpdy_core.errors import BadInput
from dpdy_core.faults import faults_told_apart, tell

LOST = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), "out-of-memory"),
        (RuntimeError("CUDA error: out of memory"), "out-of-memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "out-of-memory"),
        (MemoryError(), "out-of-memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out-of-memory"),
        (RuntimeError(LOST), "gpu-lost"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "gpu-lost"),
        (RuntimeError("CUDA error: no CUDA-capable device is detected"), "gpu-lost"),
        (RuntimeError("No CUDA GPUs are available"), "gpu-lost"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage-full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "storage-full"),
        (OSError(errno.EROFS, "Read-only file system"), "storage-fault"),
        (OSError(errno.EIO, "Input/output error"), "storage-fault"),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("unspecified launch failure"), None),
        (ValueError("CUDA out of memory"), None),
        (FileNotFoundError(errno.ENOENT, "gone"), None),
    ],
)
def test_each_fault_has_its_type(error: Exception, type: str | None) -> None:
    known = tell(error)
    assert (known.type if known else None) == type
    assert known is None or (known.remedy and known.retryable)


def test_what_safetensors_says_of_the_disk_is_understood(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"\(os error 2\)") as raised:  # that is how it says it
        save_file({"a": torch.zeros(2)}, tmp_path / "no" / "folder")
    assert tell(raised.value) is None
    full = tell(type(raised.value)(str(raised.value).replace("(os error 2)", "(os error 28)")))
    assert full is not None
    assert full.type == "storage-full"


def test_what_is_expected_or_unknown_passes() -> None:
    with pytest.raises(BadInput), faults_told_apart():
        raise BadInput("no parallax")
    with pytest.raises(KeyError), faults_told_apart():
        raise KeyError("a defect")
