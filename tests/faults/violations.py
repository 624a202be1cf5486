"""The invariant checker as a process: for a service whose disk only its own mount namespace sees."""

import sys
from pathlib import Path

from sqlalchemy import make_url

from api.db.session import make_engine, make_sessions
from api.jobs.files import Files
from api.settings import Settings
from worker.invariants import check

database, storage = sys.argv[1:]
found = check(make_sessions(make_engine(make_url(database))), Files(Path(storage)), Settings())
sys.exit("\n".join(map(str, found)) if found else 0)
