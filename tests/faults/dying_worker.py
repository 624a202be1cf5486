"""A worker that runs one job until it has ended, and SIGKILLs itself at the DIE_AT-th commit (0: never)."""

import os
import signal
import sys
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from api.db import queries
from api.db.session import make_engine, make_sessions
from api.jobs import states
from api.jobs.queue import WakeQueue
from api.settings import Settings
from worker.runner import Runner
from worker.sweep import sweep

left = int(os.environ["DIE_AT"])


def point(*_: Any) -> None:
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


settings = Settings()
sessions = make_sessions(make_engine(settings.database))
event.listen(Session, f"{os.environ['DIE']}_commit", point)
runner = Runner(settings, sessions, WakeQueue(), f"worker-{os.getpid()}")
until = time.monotonic() + 30
while time.monotonic() < until:
    sweep(sessions, runner.queue, runner.files, settings)
    runner.run_next()
    with sessions() as session:
        job = queries.job(session, sys.argv[1])
        if job is not None and job.state in states.TERMINAL:
            sys.exit(0)
    time.sleep(0.1)
sys.exit("the job did not end")
