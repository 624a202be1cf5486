"""Stands before PostgreSQL and cuts the connection when a COMMIT was done but its answer has not been read."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

NAME = ".s.PGSQL.5432"


class CuttingProxy:
    """Listens in `folder` as libpq expects; cuts once, at the commit of the transaction in which `word` was sent."""

    def __init__(self, folder: Path, upstream: Path, word: bytes) -> None:
        self.cuts = 0
        self._upstream, self._word = upstream / NAME, word
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / NAME))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._upstream))
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=_copy, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        armed = False
        with suppress(OSError):
            while data := client.recv(1 << 16):
                armed = armed or self._word in data
                if armed and b"COMMIT" in data and not self.cuts:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)  # the answer has nowhere to go
                    server.sendall(data)
                    continue
                armed = armed and b"COMMIT" not in data
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
