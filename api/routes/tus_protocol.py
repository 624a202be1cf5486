"""What tus 1.0 (https://tus.io/protocols/resumable-upload) asks of every request."""

from typing import Annotated

from fastapi import Header
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ServiceError

PREFIX = "/v1/uploads/tus"
VERSION = "1.0.0"


class TusProtocol:
    """Middleware that obeys X-HTTP-Method-Override and names the version in every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] == PREFIX or scope["path"].startswith(f"{PREFIX}/")):
            await self._app(scope, receive, send)
            return

        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        scope["method"] = Headers(scope=scope).get("x-http-method-override", scope["method"]).upper()
        await self._app(scope, receive, versioned)


def check_version(tus_resumable: Annotated[str | None, Header(description=f"`{VERSION}`")] = None) -> None:
    """Refuse other versions of the protocol, before anything else of a request is judged."""
    if tus_resumable != VERSION:
        given = f"the request has Tus-Resumable: {tus_resumable}"
        raise ServiceError(
            412,
            "tus-version",
            "Another version of the protocol",
            given if tus_resumable else "the request has no Tus-Resumable header",
            f"send Tus-Resumable: {VERSION}, or the whole file to /v1/uploads",
            headers={"Tus-Version": VERSION},
        )
