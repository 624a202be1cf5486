"""Studies in a real browser: voters who know nothing, and what their votes come to."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect

from tests.servers import wait_for
from tests.web.stand_in_engine import write_video
from tests.web.test_page import PHONE, ROOT, WAIT, own, until
from worker.demo import service

ENGINE = Path(__file__).parent / "stand_in_engine.py"
METHODS = ("Zorro", "Quixote", "Falstaff")
WORDS = (*METHODS, "upl-", "clip-", "job-", "scene")  # of what a voter's browser must see nothing


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DPDY_ENGINE", f'["{sys.executable}", "{ENGINE}", "0"]')
        environment.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with service(tmp_path_factory.mktemp("service")) as url:
            yield url


@pytest.fixture(scope="module")
def uploads(server: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One video of each method: a picture, its depth, its mask."""
    folder = tmp_path_factory.mktemp("videos")
    made = []
    for method, kind in zip(METHODS, ("", "_depth", "_invented"), strict=True):
        write_video(folder / f"{method}.mp4", kind)
        content = (folder / f"{method}.mp4").read_bytes()
        made.append(httpx.post(f"{server}/v1/uploads?filename={method}.mp4", content=content).json()["id"])
    for upload in made:
        wait_for(lambda upload=upload: httpx.get(f"{server}/v1/uploads/{upload}").json()["state"] == "ready")
    return made


@pytest.fixture
def study(server: str, uploads: list[str]) -> str:
    return make_study(server, uploads)


def make_study(server: str, uploads: list[str], **fields: object) -> str:
    clips = [{"method": method, "upload_id": upload} for method, upload in zip(METHODS, uploads, strict=True)]
    body = {"name": "Walks <b>in</b> the park", "question": "Which looks more real?", "clips": clips, **fields}
    answer = httpx.post(f"{server}/v1/studies", json=body)
    assert answer.status_code == 201, answer.text
    identity: str = answer.json()["id"]
    return identity


@pytest.fixture
def context(browser: Browser, server: str) -> Iterator[BrowserContext]:
    """Fails the test on errors in the console, in scripts, and on requests to elsewhere."""
    opened = browser.new_context(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(WAIT)
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("weberror", lambda error: wrong.append(str(error.error)))
    opened.on("request", lambda request: wrong.append(request.url) if not own(request.url, server) else None)
    yield opened
    opened.close()
    assert wrong == []


def start(page: Page, server: str, study: str) -> None:
    page.goto(f"{server}/#/studies/{study}")
    page.get_by_role("button", name="Start").click()
    until_ready(page, 1)


def until_ready(page: Page, number: int) -> None:
    """Until the pair of this number can be voted on."""
    expect(page.locator(".place .facts")).to_have_text(re.compile(f"^Pair {number} of "))
    expect(page.get_by_role("button", name="Left")).to_have_attribute("aria-disabled", "false")


def results(server: str, study: str) -> dict:
    found: dict = httpx.get(f"{server}/v1/studies/{study}/results").json()
    return found


def test_a_voter_votes_by_keyboard_and_learns_nothing_of_methods(
    context: BrowserContext, server: str, study: str
) -> None:
    page = context.new_page()
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    page.goto(f"{server}/#/studies/{study}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Walks <b>in</b> the park")  # text, not markup
    expect(page.get_by_text("Which looks more real?")).to_be_visible()
    expect(page.get_by_role("link", name="Studies")).to_be_hidden()
    page.get_by_role("button", name="Start").press("Enter")
    seen: set[str] = set()
    for number, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowRight"), start=1):
        until_ready(page, number)
        expect(page.locator("#announcer")).to_have_text(f"Pair {number} of 5")
        addresses = page.evaluate("[...document.querySelectorAll('video')].map((video) => video.currentSrc)")
        assert len(addresses) == 2
        assert not seen & set(addresses)
        seen |= set(addresses)
        assert not [word for word in WORDS if word in page.content()]
        page.keyboard.press("a")  # no key of ours
        page.keyboard.press("Control+ArrowLeft")
        page.keyboard.press(key)
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    told = [f"{answer.url} {answer.headers}" for answer in answers]
    told += [answer.text() for answer in answers if re.search("/v1/studies/[^/]+(/votes|/voters)?$", answer.url)]
    assert sum('"pair":' in text for text in told) == 6
    assert not [(word, text) for word in WORDS for text in told if word in text]
    rows = httpx.get(f"{server}/v1/studies/{study}/votes.csv").text.splitlines()[1:]
    assert [row.split(",")[6] for row in rows] == ["left", "right", "tie", "left", "right"]
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")  # the browser remembers its voter
    assert httpx.get(f"{server}/v1/studies/{study}").json()["voters"] == 1


def test_clips_play_together_and_the_space_bar_stops_them(context: BrowserContext, server: str, study: str) -> None:
    page = context.new_page()
    start(page, server, study)
    videos = "[...document.querySelectorAll('video')]"
    until(page, f"{videos}.every((video) => !video.paused && video.currentTime > 0 && video.videoWidth === 160)")
    page.keyboard.press("Space")
    until(page, f"{videos}.every((video) => video.paused)")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.get_by_role("button", name="Play").click()
    until(page, f"{videos}.every((video) => !video.paused)")
    until(page, f"{videos}.every((video) => video.ended || video.currentTime > 1.5)")
    until(page, f"{videos}.every((video) => video.currentTime < 0.8)")  # again from the start


def test_a_reload_goes_on_where_the_voter_was(context: BrowserContext, server: str, study: str) -> None:
    page = context.new_page()
    start(page, server, study)
    page.get_by_role("button", name="No difference").click()
    until_ready(page, 2)
    expect(page.get_by_role("progressbar", name="pairs judged")).to_have_attribute("value", "0.2")
    page.reload()
    until_ready(page, 2)
    page.get_by_role("button", name="Right").focus()
    page.keyboard.press("Enter")
    until_ready(page, 3)
    expect(page.get_by_role("button", name="Right")).to_be_focused()  # it stays where the voter put it
    assert results(server, study)["voters"][0]["votes"] == 2


def test_a_held_key_and_a_second_page_vote_once(browser: Browser, server: str, study: str) -> None:
    context = browser.new_context()
    page, twin = context.new_page(), context.new_page()
    start(page, server, study)
    twin.goto(f"{server}/#/studies/{study}")
    until_ready(twin, 1)
    for _ in range(5):
        page.keyboard.down("ArrowLeft")  # repeats of a key that is held
    until_ready(page, 2)
    assert results(server, study)["voters"][0]["votes"] == 1
    twin.keyboard.press("ArrowRight")  # for the pair that the other page has voted on
    until_ready(twin, 2)
    assert [(voter["votes"], voter["left"]) for voter in results(server, study)["voters"]] == [(1, 1)]
    context.close()


def test_without_ties_down_does_nothing_and_a_broken_line_says_so(
    browser: Browser, server: str, uploads: list[str]
) -> None:
    study = make_study(server, uploads, ties=False)
    context = browser.new_context()
    page = context.new_page()
    start(page, server, study)
    expect(page.get_by_role("button", name="No difference")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.route("**/votes", lambda route: route.abort())
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    page.unroute("**/votes")
    page.keyboard.press("ArrowLeft")
    until_ready(page, 2)
    expect(page.get_by_role("alert")).to_have_count(0)
    httpx.post(f"{server}/v1/studies/{study}/close")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("alert")).to_contain_text("The study takes no more votes")
    context.close()
    late = browser.new_page()
    late.goto(f"{server}/#/studies/{study}")
    expect(late.get_by_role("heading", level=1)).to_have_text("This study is over")
    late.goto(f"{server}/#/studies/unknown")
    expect(late.get_by_role("alert")).to_contain_text("There is no such study")
    late.close()


def test_clips_rest_where_motion_is_unwelcome_and_a_clip_that_fails_is_loaded_again(
    browser: Browser, server: str, study: str
) -> None:
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.route("**/pairs/*/left", lambda route: route.abort())
    page.goto(f"{server}/#/studies/{study}")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("A clip cannot be shown")
    expect(page.get_by_role("button", name="Left")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowLeft")  # nobody votes on what was not seen
    page.unroute("**/pairs/*/left")
    page.get_by_role("button", name="Try again").click()
    until_ready(page, 1)
    videos = "[...document.querySelectorAll('video')]"
    assert page.evaluate(f"{videos}.every((video) => video.paused && video.currentTime === 0)")
    page.get_by_role("button", name="Play").click()
    until(page, f"{videos}.every((video) => !video.paused)")
    assert results(server, study)["voters"] == []
    context.close()


def test_results_show_scores_pairs_and_flagged_voters(context: BrowserContext, server: str, study: str) -> None:
    for choices in (("left",) * 5, ("tie",) * 5):
        ballot = httpx.post(f"{server}/v1/studies/{study}/voters").json()
        for choice in choices:
            vote = {"voter": ballot["voter"], "pair": ballot["pair"]["id"], "choice": choice}
            ballot = httpx.post(f"{server}/v1/studies/{study}/votes", json=vote).json()
    page = context.new_page()
    page.goto(f"{server}/#/studies/{study}/results")
    expect(page.get_by_role("heading", level=1)).to_have_text("Walks <b>in</b> the park")
    scores = page.get_by_role("region", name="Scores")
    expect(scores.get_by_role("row")).to_have_count(4)
    for method in METHODS:
        expect(scores.get_by_role("row", name=method)).to_contain_text("0.00")
    expect(page.locator(".facts")).to_contain_text("3 votes")
    page.get_by_text("2 voters, 1 flagged").click()
    expect(page.get_by_role("row", name="Voter 1")).to_contain_text("flagged")
    page.get_by_label("Count voters who contradict themselves").check()
    expect(page.locator(".facts")).to_contain_text("6 votes")
    expect(page.get_by_text("Of two voters who judge the same pair, 0 % give the same answer")).to_be_visible()
    export = page.get_by_role("link", name="All votes, CSV").get_attribute("href")
    assert len(httpx.get(f"{server}{export}").text.splitlines()) == 11
    page.get_by_role("button", name="Close the study").click()
    expect(page.locator(".heading .badge")).to_have_text("closed")


def test_who_is_invited_votes_once_in_whichever_browser(
    context: BrowserContext, browser: Browser, server: str, study: str
) -> None:
    page = context.new_page()
    page.goto(f"{server}/#/studies/{study}/results")
    page.get_by_label("Voters to invite").fill("2")
    page.get_by_role("button", name="Make their pages").click()
    pages = page.get_by_label("pages of voters")
    expect(pages).to_be_visible()
    mine, other = pages.input_value().split("\n")
    assert mine != other
    page.goto(mine)
    expect(page.get_by_role("link", name="Studies")).to_be_hidden()
    page.get_by_role("button", name="Start").click()
    for number in range(1, 6):
        until_ready(page, number)
        page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")
    elsewhere = browser.new_context()
    try:
        again = elsewhere.new_page()
        again.goto(mine)
        again.get_by_role("button", name="Start").click()
        expect(again.get_by_role("heading", level=1)).to_have_text("Thank you")
        again.goto(other)
        again.get_by_role("button", name="Start").click()
        until_ready(again, 1)
    finally:
        elsewhere.close()
    assert [(voter["voter"], voter["votes"]) for voter in results(server, study)["voters"]] == [(1, 5)]


def test_a_study_is_made_of_finished_jobs(context: BrowserContext, server: str, uploads: list[str]) -> None:
    jobs = []
    for name in ("with prior", "without prior"):
        body = {"upload_id": uploads[0], "preset": "smoke", "name": name}
        jobs.append(httpx.post(f"{server}/v1/jobs", json=body).json()["id"])
    for job in jobs:
        wait_for(lambda job=job: httpx.get(f"{server}/v1/jobs/{job}").json()["state"] == "succeeded", 60)
    page = context.new_page()
    page.goto(f"{server}/")
    page.get_by_role("link", name="Studies").click()
    expect(page.get_by_role("heading", name="Ask people")).to_be_visible()
    page.get_by_label("Name, shown to voters").fill("Which one?")
    page.get_by_label("Camera path").select_option("bullet-time")
    for name in ("with prior", "without prior"):
        page.get_by_role("checkbox", name=f"compare {name}", exact=True).check()
        page.get_by_label(f"method of {name}", exact=True).fill(name)
    page.get_by_role("button", name="Make the study").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Which one?")
    expect(page.get_by_role("region", name="Scores").get_by_role("row")).to_have_count(3)
    page.locator("a[href^='#/studies/study-']").click()
    page.get_by_role("button", name="Start").click()
    until_ready(page, 1)


def test_nothing_overflows_a_phone_and_every_field_has_a_name(context: BrowserContext, server: str, study: str) -> None:
    page = context.new_page()
    page.set_viewport_size(PHONE)
    start(page, server, study)
    unnamed = "(e) => !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-label') || e.textContent.trim())"
    fields = "[...document.querySelectorAll('input, select, button, progress, video')]"
    for address in (f"#/studies/{study}", f"#/studies/{study}/results", "#/studies"):
        page.goto(f"{server}/{address}")
        page.wait_for_selector("video, .whisker, .row")
        time.sleep(0.3)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        assert page.evaluate(f"{fields}.filter({unnamed}).map((e) => e.outerHTML)") == [], address
