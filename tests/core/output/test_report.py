"""The report page: complete, self-contained, tolerant and safe."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from dpdy_core.config import RunConfig
from dpdy_core.output.curve import curve_svg
from dpdy_core.output.evaluation import evaluate_run
from dpdy_core.output.report import write_report
from dpdy_core.output.views import render_views
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, write_json

MakeRun = Callable[[int], RunDir]
VOID = {"meta", "img", "br", "path", "polyline", "link", "input"}


class Page(HTMLParser):
    """Checks that tags nest and collects what the page points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.targets += [v or "" for k, v in attrs if k in ("src", "href", "poster")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_full_run_is_reported_in_one_self_contained_page(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(2)
    render_views(run, config, reporter)
    reporter.fall_back("no flow: <b>bold</b> & brave")
    reporter.start("depth")
    reporter.step(1, 2, moving_refined=0.75)
    reporter.step(2, 2, moving_refined=0.0625)
    reporter.start("scene")
    for step in range(1, 20):
        reporter.step(step, 20, colour=1.0 / step, psnr=20.0 + step)
    reporter.done(seconds=3.0)
    reasons = [{"verdict": "risky", "what": "it is <b>dark</b>", "remedy": "film with more light"}]
    judged = {"verdict": "risky", "reasons": reasons, "looked_at": [0.125], "forecast": {"smoke": {"cpu": 1}}}
    write_json(run.capture_report_file, {"frames": 6, "cameras": {"source": "capture"}, **judged})
    evaluate_run(run, config, reporter)
    write_report(run)
    text = run.report_file.read_text()
    page = Page(text)
    assert page.open == []
    for target in page.targets:
        assert target.startswith("data:image/jpeg;base64,") or (run.root / target).is_file()
    assert not re.search(r"https?://|@import|url\(", text)
    assert {"Videos", "Held-out views", "Training of the scene", "Time and memory"} <= set(page.headings)
    assert text.count('<figure class="curve">') == 2
    assert "no flow: &lt;b&gt;bold&lt;/b&gt; &amp; brave" in text
    assert "nearest frame" in text
    assert "256 MiB" in text
    assert '<th>depth.moving_refined</th><td class="wrap">0.0625</td>' in text
    assert "cameras.source" in text
    assert "it is &lt;b&gt;dark&lt;/b&gt;; film with more light" in text
    assert "looked_at" not in text
    assert "forecast" not in text
    assert text.count('aria-label="the cameras and the points they saw, from above"') == 1
    assert "The capture" in page.headings
    assert "/somewhere" not in text


def test_a_bare_run_is_reported_too(make_run: MakeRun) -> None:
    run = make_run(0)
    write_report(run)
    page = Page(run.report_file.read_text())
    assert page.open == []
    assert "Videos" not in page.headings


def test_a_run_without_test_views_says_why_there_are_no_scores(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(0)
    evaluate_run(run, config, reporter)
    write_report(run)
    assert "the capture has no test views" in run.report_file.read_text()


@pytest.mark.parametrize("values", [[1.0, 1.0], [1.0, 1e-4, 1e-6], [-3.0, 5.0, 0.0]])
def test_curves_stay_inside_their_frame(values: list[float]) -> None:
    svg = curve_svg("loss <a>", list(enumerate(values)))
    corners = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]*)"', svg).group(1).split()]
    assert all(0 <= x <= 300 and 0 <= y <= 120 for x, y in corners)
    assert corners[0][0] < corners[-1][0]
    assert "<a>" not in svg
    assert ("log" in svg) == (values[-1] == 1e-6)


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    svg = curve_svg("loss", [(i, float(i)) for i in range(10_001)])
    points = re.search(r'points="([^"]*)"', svg).group(1).split()
    assert len(points) < 500
    assert points[-1].startswith("294.0,")
