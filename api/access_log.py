"""One line for each request, and its id: taken from `X-Request-ID` or made, sent back, and named in all its lines."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.logs import remember
from api.signing import SHARED

HEADER = "X-Request-ID"
_SIGNED = re.compile(rf"^({SHARED}/[^/]+/)[^/]+")  # links whose signature is a part of their path
PROBES = ("/livez", "/readyz", "/metrics")
_GIVEN = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
GONE = 499  # nginx's status for a client that went before its answer began

log = logging.getLogger("access")


class AccessLog:
    """Queries and headers are not written: they may hold signatures and keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        identity = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        remember(request_id=identity)  # to the end of the request's task: errors are logged after us
        started, status, size = time.monotonic(), GONE, 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identity
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500
            raise
        finally:
            self._write(scope, status, size, time.monotonic() - started)

    def _write(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        caller = scope.get("state", {}).get("caller")
        path = _SIGNED.sub(r"\1-", scope["path"])
        fields = {
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
            "bytes": size,
            "client": (scope.get("client") or (None,))[0],
            "tenant": getattr(caller, "tenant", None),
            "job": scope.get("path_params", {}).get("job_id"),
        }
        level = logging.DEBUG if scope["path"] in PROBES and status < 500 else logging.INFO
        known = {key: value for key, value in fields.items() if value is not None}
        log.log(level, "%s %s %s", scope["method"], path, status, extra={"fields": known})
