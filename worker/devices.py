"""What this machine computes on, found without torch."""

import os
import shutil
import subprocess
from typing import Any

QUERY = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]


def list_devices() -> list[dict[str, Any]]:
    """The GPUs that the driver names, or else the processor."""
    if shutil.which(QUERY[0]):
        try:
            answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            answer = ""  # a driver that does not answer has no GPU to offer
        rows = [line.rsplit(",", 1) for line in answer.splitlines() if "," in line]
        if rows:
            return [{"type": "cuda", "name": name.strip(), "memory_mib": int(memory)} for name, memory in rows]
    return [{"type": "cpu", "name": f"{os.cpu_count()} cores", "memory_mib": None}]
