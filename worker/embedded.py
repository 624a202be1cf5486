"""The whole service in one process: API, page, and one worker thread that supervises the same child processes."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from api.db.session import make_engine, make_sessions
from api.jobs.queue import WakeQueue
from api.main import create_app
from api.settings import Settings
from migrations import upgrade
from worker.station import Station

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Tells the worker of a stop at once, so that its child checkpoints while the last requests end."""

    def __init__(self, config: uvicorn.Config, station: Station) -> None:
        super().__init__(config)
        self._station = station
        self.interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again behind it, which would end us before the job is given back."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.interrupted = sig == signal.SIGINT
        self._station.request_stop()
        self.config.app.state.service.closing.set()  # type: ignore[union-attr]  # ends event streams
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; a running job goes back to the queue and is resumed by the next start."""
    upgrade(settings.database)
    sessions = make_sessions(make_engine(settings.database))
    queue = WakeQueue()
    station = Station(settings, sessions, queue)
    config = uvicorn.Config(
        create_app(settings, queue, sessions),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    listening = _bind(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    station.start()
    log.warning("serving on http://%s:%s, data in %s", f"[{host}]" if ":" in host else host, port, settings.storage)
    server = Server(config, station)
    try:
        server.run(sockets=[listening])
    finally:
        station.stop()
    if server.interrupted:
        raise KeyboardInterrupt


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket, made before anything starts: a port in use is an error and not a half-started service."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening
