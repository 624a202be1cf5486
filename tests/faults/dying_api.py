"""The API that is killed between the commit of a job and its message."""

import os
import signal

from fastapi import FastAPI

from api import main
from api.routes import jobs


def create_app() -> FastAPI:
    """The real application, except that it does not live to announce a job."""
    jobs.deliver = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    return main.create_app()
