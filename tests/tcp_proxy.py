"""Stands between a client and a server, and breaks connections as bad networks do."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.servers import wait_for


class TcpProxy:
    """Passes bytes on to `target`, a port or a Unix socket; breaks the next `cuts` connections, each after `budget`
    bytes of the client, and every one on which the server is silent for longer than `patience` seconds.
    """

    def __init__(
        self,
        target: int | Path,
        cuts: int = 0,
        budget: int = 0,
        pause: float = 0.0,
        patience: float | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.target, self.cuts, self.budget = target, cuts, budget
        self.pause = pause  # seconds after each 64 KiB
        self.patience = patience
        self.passed = 0  # bytes of clients
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{address}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait_passed(self, count: int) -> None:
        """Until clients have sent so many bytes."""
        wait_for(lambda: self.passed >= count, pause=0.005)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, self._connected() as server:
            server.settimeout(self.patience)
            threading.Thread(target=_answer, args=(server, client), daemon=True).start()
            came = 0
            while data := client.recv(1 << 16):
                came += len(data)
                if self.cuts and came > self.budget:
                    self.cuts -= 1
                    server.sendall(data[: self.budget - came] if came - self.budget < len(data) else b"")
                    for end in (client, server):  # no FIN: a reset, as from a router that lost its table
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(data)
                self.passed += len(data)
                time.sleep(self.pause)

    def _connected(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target))
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(self.target))
        return made


def _answer(server: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := server.recv(1 << 16):
            client.sendall(data)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp_proxy(target: int | Path, **words: Any) -> Iterator[TcpProxy]:
    proxy = TcpProxy(target, **words)
    try:
        yield proxy
    finally:
        proxy.close()
