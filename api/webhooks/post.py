"""One POST to one address that was checked before: no proxy, no redirect, no second look at the name, a hard deadline.

Of the answer only the status line and the headers are read. httpx resolves names by itself, so this is http.client with
a socket of ours.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from api.webhooks.target import Target

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0


class Unreachable(Exception):
    """No answer, and why in a few words that tell nothing of what is there instead."""


class _Pinned(http.client.HTTPConnection):
    """Connects to the given addresses, one after the other, whatever the host's name means by now."""

    def __init__(self, target: Target, addresses: Sequence[str], context: ssl.SSLContext, until: float) -> None:
        super().__init__(target.host, target.port)
        self._target = target
        self._addresses = addresses
        self._context = context
        self._until = until
        self.default_port = 443 if target.secure else 80  # what the Host header leaves out

    def connect(self) -> None:
        self.sock = self._connected()
        if self._target.secure:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._target.host)
        if time.monotonic() >= self._until:
            raise TimeoutError

    def _connected(self) -> socket.socket:
        fault: OSError = TimeoutError()
        for address in self._addresses:
            left = self._until - time.monotonic()
            if left <= 0:
                break
            try:
                made = socket.create_connection((address, self._target.port), min(CONNECT_SECONDS, left))
            except OSError as error:
                fault = error
                continue
            made.settimeout(max(self._until - time.monotonic(), 0.001))
            return made
        raise fault


def post(
    target: Target,
    addresses: Sequence[str],
    headers: Mapping[str, str],
    body: str,
    context: ssl.SSLContext | None = None,
    seconds: float = TOTAL_SECONDS,
) -> int:
    """The status of the answer. Raises Unreachable after `seconds` at the latest, however slowly the answer drips."""
    connection = _Pinned(target, addresses, context or ssl.create_default_context(), time.monotonic() + seconds)
    expired = threading.Event()

    def cut() -> None:
        expired.set()
        if (open_socket := connection.sock) is not None:
            with suppress(OSError):
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)  # SSLSocket's own is not for a second thread

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        connection.request("POST", target.resource, body.encode(), dict(headers))
        status = connection.getresponse().status
        if expired.is_set():  # headers that were cut off look like headers that have ended
            raise TimeoutError
        return status
    except ssl.SSLCertVerificationError as error:
        raise Unreachable("its certificate is not valid") from error
    except ssl.SSLError as error:
        raise Unreachable(_timed_out(seconds) if expired.is_set() else "TLS failed") from error
    except (OSError, http.client.HTTPException) as error:
        if expired.is_set() or isinstance(error, TimeoutError):
            raise Unreachable(_timed_out(seconds)) from error
        if isinstance(error, ConnectionRefusedError):
            raise Unreachable("connection refused") from error
        raise Unreachable("the connection broke, or the answer was no HTTP") from error
    finally:
        timer.cancel()
        connection.close()


def _timed_out(seconds: float) -> str:
    return f"timed out (at most {seconds:g} s)"
