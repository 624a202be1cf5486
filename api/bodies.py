"""Bodies other than uploads are short, and come in time."""

import asyncio
from time import monotonic

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ShortBodies:
    """Middleware: 413 for a body that is too long, 408 for one that dawdles."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/v1/uploads"):
            await self._app(scope, receive, send)
            return
        seen, until, ended = 0, monotonic() + self._seconds, False

        async def counted() -> Message:
            nonlocal seen, ended
            if ended:  # what comes now is only the end of the connection
                return await receive()
            try:
                async with asyncio.timeout(until - monotonic()):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the body did not come within {self._seconds:g} s") from error
            ended = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self._limit:  # FastAPI lets only an HTTPException pass
                raise HTTPException(413, f"a request may have {self._limit} bytes")
            return message

        await self._app(scope, counted, send)
