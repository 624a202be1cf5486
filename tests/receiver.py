"""A receiver of webhooks on this machine, as nice or as nasty as a test needs."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers import free_port


@dataclass
class Message:
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Receiver:
    """What came in. `answers`: the status for the next messages, the last one for all others.

    By path: `/slow` answers only after `release`, `/drip` sends a byte of an endless header now and then, `/dies` hangs
    up after it has read the message, `/redirect` points to `/elsewhere`.
    """

    url: str
    answers: list[int] = field(default_factory=lambda: [204])
    messages: list[Message] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def to(self, path: str) -> list[Message]:
        return [message for message in self.messages if message.path == path]

    def ids(self) -> list[str]:
        return [message.headers["webhook-id"] for message in self.messages]


@contextmanager
def receiver(port: int | None = None, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            running.messages.append(Message(self.path, headers, body))
            if self.path == "/dies":
                self.close_connection = True
                return
            if self.path == "/slow":
                running.release.wait(60)
            if self.path == "/drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
                while not running.release.wait(0.05):
                    self.wfile.write(b"x")
                return
            answer = running.answers.pop(0) if len(running.answers) > 1 else running.answers[0]
            self.send_response(302 if self.path == "/redirect" else answer)
            if self.path == "/redirect":
                self.send_header("Location", f"{running.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the sender hangs up on purpose

    port = port or free_port()
    server = Quiet(("127.0.0.1", port), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    running = Receiver(f"http{'s' if context else ''}://127.0.0.1:{port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
