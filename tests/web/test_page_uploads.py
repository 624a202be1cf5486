"""The page's uploader over connections that break, in a real browser."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

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


def test_an_upload_survives_a_broken_connection_and_a_reload(browser: Browser, server: str, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(os.urandom(SIZE))
    with tcp_proxy(int(server.rpartition(":")[2]), cuts=1, budget=5_000_000, pause=0.005) as proxy:
        context = browser.new_context()
        page = context.new_page()
        begun: list[str] = []
        page.on("request", lambda request: begun.append(request.url) if request.method == "POST" else None)
        for needed in (10_000_000, None):
            page.goto(f"{proxy.url}/")
            page.locator("#file").set_input_files(film)
            if needed:
                proxy.wait_passed(needed)
                assert proxy.cuts == 0
        expect(page.get_by_role("region", name="capture report")).to_be_visible(timeout=30_000)
        assert begun == [f"{proxy.url}/v1/uploads/tus"]
        assert proxy.passed < SIZE + 6_000_000  # of what arrived, nothing is sent again
        page.get_by_role("radio", name="smoke").check()
        page.get_by_role("button", name="Make the scene").click()
        page.wait_for_url("**/#/jobs/*")
        job = httpx.get(f"{server}/v1/jobs/{page.url.rpartition('/')[2]}").json()
        assert httpx.get(f"{server}/v1/uploads/{job['upload_id']}").json()["size"] == SIZE
        context.close()
