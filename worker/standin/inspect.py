"""`inspect` of the stand-in. Every upload waits for it, so it loads next to nothing."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def inspect(file: Path) -> None:
    head = file.read_bytes()[:5]
    if head.startswith(b"bad"):
        problem = {"type": "bad-input", "title": "T", "detail": "not a video", "remedy": "send one", "retryable": False}
        sys.stdout.write(json.dumps(problem))
        sys.exit(3)
    if head.startswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if head.startswith(b"hang"):
        time.sleep(600)
    sys.stdout.write(json.dumps({"frames": 24, "size": [64, 48], "warnings": []}))
