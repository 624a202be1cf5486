"""The headers that tell browsers what an answer may do (OWASP, HTTP Security Response Headers).

The default suits JSON: nothing may be run, framed, sniffed or used by other sites. The page, the description of the API
and artifacts bring a policy of their own.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=31536000"  # only over TLS, as the standard asks
CLOSED = "frame-ancestors 'none'; base-uri 'none'"
PAGE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    f" connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; form-action 'self'; {CLOSED}",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
# its scripts come from elsewhere: it has no origin, so that they have no rights here and no cookie
CDN = "'unsafe-inline' https://cdn.jsdelivr.net"
DOCS = {
    "Content-Security-Policy": "sandbox allow-scripts allow-popups; default-src 'none'; connect-src 'self';"
    f" img-src data: https://fastapi.tiangolo.com; style-src {CDN}; script-src {CDN}; form-action 'none'; {CLOSED}",
}
PUBLIC = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
OWN = {"/docs": DOCS, "/openapi.json": PUBLIC}


class SecurityHeaders:
    """Middleware that adds what an answer has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (ALWAYS | OWN.get(scope["path"], {})).items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", HSTS)
            await send(message)

        await self._app(scope, receive, guarded)
