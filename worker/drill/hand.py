"""A throw-away worker of one tenant's jobs, to be killed: `python -m worker.drill.hand TENANT`.

It does not show itself among the workers, and sees nobody else's rows.
"""

import os
import secrets
import signal
import socket
import sys

from api.db import queries
from api.db.session import make_engine, make_sessions
from api.logs import configure
from api.settings import Settings
from worker.drill.bell import Mute
from worker.runner import Runner
from worker.sweep import reap_lost


def main(tenant: str) -> None:
    """Run the tenant's jobs, and take up those whose workers are lost, until SIGTERM."""
    settings = Settings()
    configure(settings.log_format, settings.log_level)
    sessions = make_sessions(make_engine(settings.database)).of(tenant)
    name = f"drill-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    runner = Runner(settings, sessions, Mute(), name)
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    while not runner.stopping.is_set():
        with sessions() as session:
            stale = queries.stale_jobs(session)
        reap_lost(sessions, stale, settings)
        if not runner.run_next():
            runner.stopping.wait(settings.poll_seconds)
    runner.close()


if __name__ == "__main__":
    main(sys.argv[1])
