"""What routes ask for in their signatures."""

from dataclasses import dataclass, field
from threading import Event
from typing import Annotated

from fastapi import Depends, Header, Request

from api.db.session import Sessions
from api.jobs.files import Files
from api.jobs.queue import JobQueue
from api.jobs.uploads import Checker
from api.settings import Settings


@dataclass(frozen=True)
class Service:
    """What one API process owns. `closing` ends event streams and long polls."""

    settings: Settings
    sessions: Sessions
    queue: JobQueue
    files: Files
    checker: Checker
    closing: Event = field(default_factory=Event)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, description="repeats with it make one job only"),
]
