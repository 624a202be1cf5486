import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from api.client.client import DpdyClient
from api.client.download import download_file, inside
from api.client.errors import ServerUnreachable

DATA = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(DATA).hexdigest()


class Flaky(BaseHTTPRequestHandler):
    """Serves DATA with ranges; breaks off after each of `cuts` bytes, then serves the rest."""

    cuts: ClassVar[list[int]] = []
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        if self.path.endswith("/artifacts"):
            item = {"path": "renders/a.mp4", "size": len(DATA), "sha256": DIGEST}
            body = str([item, {**item, "path": "scene/big.bin"}]).replace("'", '"').encode()
            return self._answer(200, b'{"items": ' + body + b"}")
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        start = int(match[1]) if wanted and (match := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
        self._answer(206 if wanted else 200, DATA[start:], self.cuts.pop(0) if self.cuts else None)

    def _answer(self, status: int, body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def server() -> Iterator[str]:
    Flaky.cuts, Flaky.ranges = [], []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_download_goes_on_where_the_connection_broke(server: str, tmp_path: Path) -> None:
    Flaky.cuts = [1000, 5000]
    shown: list[tuple[int, int]] = []
    with DpdyClient(server) as client:
        files = client.download("j", tmp_path, progress=lambda done, total: shown.append((done, total)))
    assert files == [tmp_path / "renders" / "a.mp4"]  # the checkpoint is not a result
    assert files[0].read_bytes() == DATA
    assert Flaky.ranges == [None, "bytes=1000-", "bytes=6000-"]
    assert shown[-1] == (len(DATA), len(DATA))
    assert not list(tmp_path.rglob("*.part"))


def test_a_part_of_an_earlier_call_is_continued(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.with_name("a.mp4.part").write_bytes(DATA[:4321])
    with httpx.Client(base_url=server) as http:
        shown = list(download_file(http, "/file", target, len(DATA), DIGEST))
    assert (shown[0], shown[-1]) == (4321, len(DATA))
    assert Flaky.ranges == ["bytes=4321-"]
    assert target.read_bytes() == DATA


def test_a_damaged_part_is_thrown_away_and_never_takes_the_name(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.with_name("a.mp4.part").write_bytes(b"?" * 4321)
    with httpx.Client(base_url=server) as http:
        with pytest.raises(ServerUnreachable, match="damaged"):
            list(download_file(http, "/file", target, len(DATA), DIGEST))
        assert not target.exists()
        list(download_file(http, "/file", target, len(DATA), DIGEST))
    assert target.read_bytes() == DATA


def test_a_file_that_is_there_is_not_fetched_again(server: str, tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.write_bytes(DATA)
    with httpx.Client(base_url=server) as http:
        assert list(download_file(http, "/file", target, len(DATA), DIGEST)) == [len(DATA)]
    assert Flaky.ranges == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", ""])
def test_a_name_that_leaves_the_folder_is_not_trusted(tmp_path: Path, name: str) -> None:
    with pytest.raises(ServerUnreachable, match="not inside"):
        inside(tmp_path, name)
