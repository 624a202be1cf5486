"""The API, made by a factory: `create_app(settings, queue)`, or `uvicorn --factory api.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.staticfiles import StaticFiles
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access_log import AccessLog
from api.db.session import Sessions, make_engine, make_sessions
from api.deps import Service
from api.errors import ServiceError, add_handlers, render
from api.jobs.files import make_files
from api.jobs.queue import CeleryQueue, JobQueue, WakeQueue
from api.jobs.uploads import Checker
from api.logs import configure
from api.routes import artifacts, events, health, jobs, metrics, presets, studies, uploads, webhooks
from api.schemas import ProblemDocument
from api.settings import Settings
from dpdy_core import __version__

WEB = Path(__file__).parent / "web"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;"
    " style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_app(
    settings: Settings | None = None, queue: JobQueue | None = None, sessions: Sessions | None = None
) -> FastAPI:
    """The application. Without arguments all comes from the environment; the database must be migrated already."""
    if settings is None:
        settings = Settings()
        configure(settings.log_format, settings.log_level)
    sessions = sessions or make_sessions(make_engine(settings.database))
    files = make_files(settings)
    queue = queue or (CeleryQueue(settings.broker_url) if settings.broker_url else WakeQueue())
    service = Service(settings, sessions, queue, files, Checker(settings, sessions, files))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.checker.resume()
        yield
        service.closing.set()
        service.checker.close()

    app = FastAPI(
        title="DpDy",
        version=__version__,
        summary="One video of a moving scene in, novel views out.",
        description="Upload a capture, submit a job, follow it, fetch its artifacts. Errors are problem documents.",
        lifespan=lifespan,
        responses={"default": {"model": ProblemDocument, "description": "A problem (application/problem+json)"}},
    )
    app.state.service = service
    add_handlers(app)
    for module in (uploads, jobs, events, artifacts, webhooks, studies, presets, health, metrics):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=WEB, check_dir=False), name="static")
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(AccessLog)
    return app


def _page() -> FileResponse:
    """The page of people who use a browser."""
    return FileResponse(WEB / "index.html", media_type="text/html", headers=PAGE_HEADERS)


class Gate:
    """Before any route: strangers stay out while there are no API keys, and bodies other than uploads are short."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._open = settings.auth == "off"
        self._limit = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not self._open and _beyond_loopback(scope):
            refusal = ServiceError(
                403,
                "auth-unavailable",
                "Only this machine may use the service",
                "it is reached from beyond loopback, and API keys are not available yet",
                "set DPDY_AUTH=off if a firewall or proxy keeps strangers out",
            )
            await render(refusal)(scope, receive, send)
        elif scope["path"].startswith("/v1/uploads"):
            await self._app(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413, f"a request may have {self._limit} bytes")  # FastAPI lets only this one pass
            return message

        await self._app(scope, counted, send)


def _beyond_loopback(scope: Scope) -> bool:
    """Whether the request came in on an address that other machines reach."""
    try:
        return not ip_address((scope.get("server") or ("",))[0]).is_loopback
    except ValueError:  # a Unix socket, or a test client's name
        return False
