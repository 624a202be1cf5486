"""The page's uploader over connections that break, in a real browser."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.tcp_proxy import tcp_proxy
from worker.demo import service

ENGINE = Path(__file__).parent / "stand_in_engine.py"
ROOT = Path(__file__).parents[2]
SIZE = 20_000_000


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DPDY_ENGINE", f'["{sys.executable}", "{ENGINE}", "0.1"]')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with service(tmp_path) as url:
        yield url


def offsets(page: Page) -> tuple[list[int], list[int]]:
    """Where each part that the page sends begins, and how much the server said to have, from now on."""
    sent: list[int] = []
    told: list[int] = []
    for name, method, found in (("request", "PATCH", sent), ("response", "HEAD", told)):

        def note(event: Any, method: str = method, found: list[int] = found) -> None:
            if getattr(event, "request", event).method == method and "upload-offset" in event.headers:
                found.append(int(event.headers["upload-offset"]))

        page.on(name, note)
    return sent, told


def test_an_upload_survives_a_broken_connection_and_a_reload(browser: Browser, server: str, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(os.urandom(SIZE))
    with tcp_proxy(int(server.rpartition(":")[2]), cuts=1, budget=5_000_000, pause=0.005) as proxy:
        context = browser.new_context()
        page = context.new_page()
        begun: list[str] = []
        sent, told = offsets(page)
        page.on("request", lambda request: begun.append(request.url) if request.method == "POST" else None)
        for needed in (10_000_000, None):
            page.goto(f"{proxy.url}/")
            page.locator("#file").set_input_files(film)
            if needed:
                proxy.wait_passed(needed)
                assert proxy.cuts == 0
        expect(page.get_by_role("region", name="capture report")).to_be_visible(timeout=30_000)
        assert begun == [f"{proxy.url}/v1/uploads/tus"]
        # of what the server has, nothing is sent again; bytes on the way to it are lost, a busy server's are many
        assert sent == sorted(sent)
        assert set(sent) <= {0, *told}
        assert 0 < sent[-1] < SIZE
        page.get_by_role("radio", name="smoke").check()
        page.get_by_role("button", name="Make the scene").click()
        page.wait_for_url("**/#/jobs/*")
        job = httpx.get(f"{server}/v1/jobs/{page.url.rpartition('/')[2]}").json()
        assert httpx.get(f"{server}/v1/uploads/{job['upload_id']}").json()["size"] == SIZE
        context.close()
