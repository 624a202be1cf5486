import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from worker.demo import service

ROOT = Path(__file__).parents[2]
WEB = ROOT / "api" / "web"
ENGINE = Path(__file__).parent / "stand_in_engine.py"
PACE = 0.1
WAIT = 30_000  # ms; the machine may be busy
PHONE = {"width": 390, "height": 844}


expect.set_options(timeout=WAIT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        engine = f'["{sys.executable}", "{ENGINE}", "{PACE}"]'
        environment.setenv("DPDY_ENGINE", engine)
        environment.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with service(tmp_path_factory.mktemp("service")) as url:
            yield url


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    """A page of the running service; the test fails on console errors, script errors and requests to elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: wrong.append(request.url) if not own(request.url, server) else None)
    opened.goto(f"{server}/")
    yield opened
    context.close()
    assert wrong == []


def own(url: str, server: str) -> bool:
    return url.startswith((server, "data:", "blob:"))


def start_job(page: Page, name: str, content: bytes = b"a video") -> str:
    """Upload `content` through the form; the id of the job."""
    page.locator("#file").set_input_files({"name": name, "mimeType": "video/mp4", "buffer": content})
    page.get_by_role("radio", name="smoke").check()
    page.get_by_role("button", name="Make the scene").click()
    page.wait_for_url("**/#/jobs/*")
    return page.url.rpartition("/")[2]


def until(page: Page, expression: str) -> None:
    """Wait until the expression is true; asked from outside, as the page's policy forbids evaluating strings inside."""
    deadline = time.monotonic() + WAIT / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(100)


def state(page: Page, word: str) -> None:
    expect(page.locator(".heading .badge")).to_have_text(word)


def test_a_video_becomes_novel_views(page: Page, server: str) -> None:
    name = "<img src=x onerror=alert(1)>.mp4"
    start_job(page, name)
    expect(page.get_by_role("heading", level=1)).to_have_text(name)  # text, not markup
    state(page, "running")
    expect(page.locator(".stages li")).to_have_count(8)
    expect(page.locator(".stages li.running")).to_have_count(1)
    running = page.locator(".stages li.running progress")
    expect(running).to_be_visible()
    expect(page.locator("#announcer")).to_contain_text("is running")
    expect(page.locator(".facts")).to_contain_text("%")

    preview = page.locator(".preview img")
    expect(preview).to_be_visible()
    until(page, "document.querySelector('.preview img').naturalWidth === 160")

    state(page, "succeeded")
    expect(page.locator(".stages li.done")).to_have_count(8)
    expect(page.locator(".work .notes")).to_contain_text("<script>alert(1)</script> a plane sweep is used")
    expect(page.locator(".log")).to_contain_text("cameras: <b>begins</b>")
    expect(page.locator("video")).to_have_count(3)
    until(page, "[...document.querySelectorAll('video')].every((v) => v.currentTime > 0 && v.videoWidth === 160)")

    page.get_by_role("radio", name="Bullet time").check()
    expect(page.locator("video").first).to_have_attribute("src", re.compile("bullet-time.mp4"))
    page.get_by_role("checkbox", name="Depth").uncheck()
    expect(page.locator("figure[data-kind=_depth]")).to_be_hidden()

    row = page.get_by_role("row", name="PSNR")
    expect(row).to_contain_text("21.37")
    expect(row).to_contain_text("17.20")
    expect(page.get_by_role("row", name="LPIPS")).to_contain_text("–")
    assert httpx.get(server + str(page.get_by_role("link", name="Report").get_attribute("href"))).status_code == 200
    archive = page.get_by_role("link", name="All files").get_attribute("href")
    assert httpx.get(f"{server}{archive}").content[:2] == b"PK"

    page.reload()
    expect(page.locator("video")).to_have_count(3)  # the address is enough to come back
    page.get_by_role("link", name="All jobs").click()
    expect(page.locator(".row", has_text=name)).to_contain_text("succeeded")


def test_a_failed_job_says_why_and_what_to_do(page: Page) -> None:
    start_job(page, "blank wall.mp4", b"fail")
    state(page, "failed")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("2 of 24 frames found their camera")
    expect(problem).to_contain_text("film with more texture")
    expect(problem).to_contain_text("Ingest, Motion masks")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".facts")).to_contain_text("attempt 2")
    state(page, "failed")


def test_a_rejected_upload_is_explained_before_any_job(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "x.mp4", "mimeType": "video/mp4", "buffer": b"reject"})
    page.get_by_role("button", name="Make the scene").click()
    expect(page.get_by_role("alert")).to_contain_text("the file holds no video frames")
    expect(page.get_by_role("alert")).to_contain_text("copy it from the camera again")
    expect(page.get_by_role("button", name="Make the scene")).to_be_enabled()


def test_a_risky_capture_is_judged_before_any_job(page: Page) -> None:
    page.locator("#file").set_input_files({"name": "x.mp4", "mimeType": "video/mp4", "buffer": b"risky"})
    report = page.get_by_role("region", name="capture report")
    expect(report.locator(".badge")).to_have_text("risky")
    expect(report.locator(".reasons")).to_contain_text("The <b>camera</b> stands still. Walk sideways.")  # no markup
    expect(report).to_contain_text("122 frames · 1280 × 720 · 29.97 a second · 4.0 s")
    expect(report.get_by_role("row", name="smoke")).to_contain_text("min")
    expect(page.locator("#announcer")).to_contain_text("risky")
    assert page.url.endswith("/") or page.url.endswith("#/")  # nothing was submitted
    page.get_by_role("button", name="Make the scene").click()
    page.wait_for_url("**/#/jobs/*")
    page.get_by_role("button", name="Cancel").click()


def test_a_click_before_the_verdict_submits_only_what_is_good(page: Page) -> None:
    page.route("**/v1/uploads/*", lambda route: (time.sleep(0.5), route.continue_()))
    page.locator("#file").set_input_files({"name": "x.mp4", "mimeType": "video/mp4", "buffer": b"hopeless"})
    page.get_by_role("button", name="Make the scene").click()
    expect(page.get_by_role("region", name="capture report")).to_contain_text("will fail")
    anyway = page.get_by_role("button", name="Make the scene anyway")
    expect(anyway).to_be_enabled()
    assert "/jobs/" not in page.url
    page.locator("#file").set_input_files({"name": "y.mp4", "mimeType": "video/mp4", "buffer": b"a video"})
    expect(page.get_by_role("region", name="capture report")).to_contain_text("good")
    expect(anyway).to_have_count(0)


def test_a_job_can_be_cancelled_and_deleted_with_the_keyboard(page: Page, server: str) -> None:
    job = start_job(page, "wrong one.mp4")
    page.get_by_role("button", name="Cancel").press("Enter")
    state(page, "cancelled")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    page.get_by_role("button", name="Delete").press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()  # the harmless one
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Delete").press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    expect(page.locator(f"a[href='#/jobs/{job}']")).to_have_count(0)
    assert httpx.get(f"{server}/v1/jobs/{job}").status_code == 410


def test_settings_that_were_changed_are_sent_and_no_others(page: Page, server: str) -> None:
    page.get_by_role("radio", name="smoke").check()
    page.locator("summary", has_text="Name and settings").click()
    page.locator("summary", has_text=re.compile("^scene$")).click()
    page.get_by_label("scene.steps").fill("7")
    page.get_by_label("scene.sds.enabled").uncheck()
    page.locator("summary", has_text=re.compile("^depth$")).click()
    page.get_by_label("depth.source").select_option("sweep")
    page.locator("#file").set_input_files({"name": "s.mp4", "mimeType": "video/mp4", "buffer": b"a video"})
    page.get_by_role("button", name="Make the scene").click()
    page.wait_for_url("**/#/jobs/*")
    job = httpx.get(f"{server}/v1/jobs/{page.url.rpartition('/')[2]}").json()
    assert job["settings"] == {"scene.steps": 7, "scene.sds.enabled": False, "depth.source": "sweep"}
    httpx.post(f"{server}/v1/jobs/{job['id']}/cancel")


def test_without_event_streams_the_page_asks(browser: Browser, server: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.route("**/events", lambda route: route.abort())
    page.goto(f"{server}/")
    start_job(page, "proxy.mp4")
    state(page, "succeeded")
    expect(page.locator("video")).to_have_count(3)
    context.close()


def test_nothing_overflows_a_phone_and_every_field_has_a_name(page: Page, server: str) -> None:
    page.set_viewport_size(PHONE)
    finished = httpx.get(f"{server}/v1/jobs", params={"state": "succeeded"}).json()["items"][0]["id"]
    for address in ("#/", f"#/jobs/{finished}"):
        page.goto(f"{server}/{address}")
        page.wait_for_selector(".row, video")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        unnamed = "(e) => !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-label') || e.textContent.trim())"
        fields = "[...document.querySelectorAll('input, select, button, progress, video')]"
        assert page.evaluate(f"{fields}.filter({unnamed}).map((e) => e.outerHTML)") == [], address


def test_an_address_of_no_job_says_so(browser: Browser, server: str) -> None:
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.goto(f"{server}/#/jobs/unknown")
    expect(page.get_by_role("alert")).to_contain_text("There is no such job")
    context.close()


@pytest.mark.parametrize("script", sorted(WEB.glob("*.js")), ids=lambda path: path.name)
def test_scripts_never_turn_text_into_markup(script: Path) -> None:
    text = script.read_text()
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert sink not in text, sink


def test_the_page_needs_no_inline_code_and_nothing_from_elsewhere() -> None:
    html = (WEB / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", html)
    for file in WEB.iterdir():
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.read_text()), file.name
