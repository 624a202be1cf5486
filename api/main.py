"""The API, made by a factory: `create_app(settings, queue)`, or `uvicorn --factory api.main:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse

from api.access import Access
from api.access_log import AccessLog
from api.bodies import ShortBodies
from api.cookies import make_cookies
from api.db.session import Sessions, make_engine, make_sessions
from api.deps import Service
from api.headers import PAGE, SecurityHeaders
from api.jobs.files import make_files
from api.jobs.queue import CeleryQueue, JobQueue, WakeQueue
from api.jobs.uploads import Checker
from api.logs import configure
from api.problems import add_handlers
from api.routes import artifacts, events, health, jobs, metrics, presets, session, studies, tus, uploads, webhooks
from api.routes.tus_protocol import TusProtocol
from api.schemas import ProblemDocument
from api.settings import Settings
from api.signing import make_links
from api.watch import Watch
from dpdy_core import __version__

WEB = Path(__file__).parent / "web"
TUS = [f"Upload-{name}" for name in ("Offset", "Length", "Metadata", "Checksum", "Expires")] + ["Tus-Resumable"]
CORS: dict[str, Any] = {  # keys only: a cookie is never sent by another site
    "allow_methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
        "Range",
        "X-Request-ID",
        *TUS,
    ],
    "expose_headers": ["Content-Range", "ETag", "Location", "Retry-After", "X-Request-ID", *TUS],
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
    service = Service(
        settings,
        sessions,
        queue,
        files,
        Checker(settings, sessions, files),
        make_links(settings),
        make_cookies(settings),
        Watch(sessions),
    )

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
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        swagger_ui_parameters={"supportedSubmitMethods": []},  # it has no origin: see api.headers
        lifespan=lifespan,
        responses={"default": {"model": ProblemDocument, "description": "A problem (application/problem+json)"}},
    )
    app.state.service = service
    add_handlers(app)
    app.include_router(artifacts.shared)
    for module in (tus, uploads, jobs, events, artifacts, webhooks, studies, presets, session, health, metrics):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=WEB, check_dir=False), name="static")
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_middleware(ShortBodies, limit=settings.max_body_bytes, seconds=settings.body_seconds)
    app.add_middleware(Access, settings=settings, sessions=sessions, links=service.links, cookies=service.cookies)
    app.add_middleware(TusProtocol)  # it may change the method, on which access depends
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)
    return app


def _page() -> FileResponse:
    """The page of people who use a browser."""
    return FileResponse(WEB / "index.html", media_type="text/html", headers=PAGE)
