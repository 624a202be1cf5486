"""The page where keys are needed: a key is entered once."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from api.db.session import make_engine, make_sessions
from api.settings import Settings
from tests.harness import make_key
from tests.servers import wait_for
from worker.demo import service

ROOT = Path(__file__).parents[2]
ENGINE = Path(__file__).parent / "stand_in_engine.py"
WAIT = 30_000  # ms; the machine may be busy


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A service that asks everybody for a key; its URL and a key."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DPDY_ENGINE", f'["{sys.executable}", "{ENGINE}", "0.02"]')
        environment.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment.setenv("DPDY_AUTH", "on")
        with service(tmp_path) as url:
            settings = Settings(_env_file=None, data=tmp_path / "data")  # type: ignore[call-arg]
            yield url, make_key(make_sessions(make_engine(settings.database)))


def test_sign_in_work_sign_out(browser: Browser, guarded: tuple[str, str]) -> None:
    url, key = guarded
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"{url}/")
    field = page.get_by_label("API key")
    expect(field).to_be_visible(timeout=WAIT)
    assert wrong == []

    field.fill("dpdy_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid", timeout=WAIT)
    assert wrong.pop().startswith("Failed to load resource")  # the 403, and nothing else
    field.fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible(timeout=WAIT)
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
    [cookie] = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert key[13:] not in cookie["value"]

    page.locator("#file").set_input_files({"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"a video"})
    page.get_by_role("radio", name="smoke").check()
    page.get_by_role("button", name="Make the scene").click()
    expect(page.locator(".heading .badge")).to_have_text("succeeded", timeout=WAIT)
    expect(page.locator("video")).to_have_count(3, timeout=WAIT)
    page.reload()
    expect(page.locator("video").first).to_be_visible(timeout=WAIT)

    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report").click()
    report = opened.value
    expect(report.get_by_role("heading", name="Report")).to_be_visible(timeout=WAIT)
    assert report.evaluate("self.origin") == "null"  # and its video plays all the same
    wait_for(lambda: report.evaluate("document.querySelector('video').videoWidth") == 160, WAIT / 1000)
    report.close()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible(timeout=WAIT)
    assert context.cookies() == []
    assert page.request.get(f"{url}/v1/jobs").status == 401
    assert wrong == []

    docs = context.new_page()
    docs.goto(f"{url}/docs", wait_until="domcontentloaded")
    assert docs.evaluate("self.origin") == "null"
    context.close()
