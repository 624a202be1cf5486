"""What routes ask for in their signatures. Coroutines, as each plain function would take a turn in a thread."""

from dataclasses import dataclass, field, replace
from threading import Event
from typing import Annotated

from fastapi import Depends, Header, Request

from api.access import Caller
from api.cookies import Cookies
from api.db.session import Sessions
from api.jobs.files import Files
from api.jobs.queue import JobQueue
from api.jobs.uploads import Checker
from api.quotas import quota_of
from api.settings import Settings
from api.signing import Links
from api.watch import Watch


@dataclass(frozen=True)
class Service:
    """What one API process owns. `closing` ends event streams and long polls."""

    settings: Settings
    sessions: Sessions
    queue: JobQueue
    files: Files
    checker: Checker
    links: Links
    cookies: Cookies
    watch: Watch
    closing: Event = field(default_factory=Event)


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _everybodys(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


CallerDep = Annotated[Caller, Depends(_caller)]
EverybodysDep = Annotated[Service, Depends(_everybodys)]  # sees all tenants: for health, metrics and voters only


async def _theirs(service: EverybodysDep, caller: CallerDep) -> Service:
    quota = quota_of(service.settings) if caller.keys_needed else None
    return replace(service, sessions=service.sessions.of(caller.tenant, quota))


ServiceDep = Annotated[Service, Depends(_theirs)]  # sees the caller's rows only
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, description="repeats with it make one job only"),
]
