"""Events: what passes, what stops a run, and what is read back."""

import io
import json
import math
from datetime import datetime
from pathlib import Path

import pytest

from dpdy_core.errors import Cancelled
from dpdy_core.progress import Event, Reporter, append_file, console, json_lines, read_events


class Clock:
    """Replaces the monotonic clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("dpdy_core.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def steps(events: list[Event]) -> list[int]:
    return [e["step"] for e in events if e["event"] == "step"]


def test_events_are_flat_timed_and_staged() -> None:
    events: list[Event] = []
    reporter = Reporter(events.append)
    reporter.start("depth")
    reporter.warn("few points")
    reporter.fall_back("no model")
    reporter.preview("renders/previews/a.jpg")
    reporter.done(frames=3)
    reporter.skip("prior")
    assert [e["event"] for e in events] == ["start", "warning", "fallback", "preview", "done", "skip"]
    assert [e["stage"] for e in events] == ["depth"] * 5 + ["prior"]
    assert all(e["time"].endswith("Z") and datetime.fromisoformat(e["time"]).tzinfo for e in events)
    assert events[4]["numbers"] == {"frames": 3}


def test_the_first_and_the_last_step_always_pass_others_by_interval(clock: Clock) -> None:
    events: list[Event] = []
    reporter = Reporter(events.append, interval=1.0)
    reporter.start("scene")
    for step in range(1, 11):
        clock.now += 0.3
        reporter.step(step, 10)
    assert steps(events) == [1, 5, 9, 10]


def test_due_tells_whether_a_step_would_pass(clock: Clock) -> None:
    reporter = Reporter(interval=1.0)
    reporter.start("scene")
    assert reporter.due()
    reporter.step(1, 10)
    assert not reporter.due()
    clock.now += 1.0
    assert reporter.due()


def test_progress_and_remaining_time_follow_the_rate(clock: Clock) -> None:
    events: list[Event] = []
    reporter = Reporter(events.append, interval=0.0)
    reporter.start("scene")
    clock.now += 2.0
    reporter.step(1, 4)
    assert (events[-1]["progress"], events[-1]["eta_seconds"]) == (0.25, 6.0)


def test_a_resumed_loop_counts_its_rate_from_where_it_began(clock: Clock) -> None:
    events: list[Event] = []
    reporter = Reporter(events.append, interval=0.0)
    reporter.start("scene")
    clock.now += 2.0
    reporter.step(901, 1000)
    clock.now += 2.0
    reporter.step(902, 1000)
    assert events[-1]["eta_seconds"] == pytest.approx(2.0 * 98)


def test_numbers_that_are_none_become_null() -> None:
    events: list[Event] = []
    reporter = Reporter(events.append)
    reporter.start("scene")
    reporter.step(1, 2, loss=math.nan, psnr=math.inf, colour=0.12345678)
    assert events[-1]["numbers"] == {"loss": None, "psnr": None, "colour": 0.123457}
    json.dumps(events, allow_nan=False)


def test_a_requested_stop_ends_the_next_step_check_or_stage() -> None:
    reporter = Reporter()
    reporter.start("scene")
    reporter.step(1, 3)
    reporter.request_stop()
    for call in (lambda: reporter.step(2, 3), reporter.check, lambda: reporter.start("render")):
        with pytest.raises(Cancelled):
            call()


def test_files_are_appended_to_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "run" / "events.jsonl"
    assert read_events(file) == []
    reporter = Reporter(append_file(file))
    reporter.start("ingest")
    Reporter(append_file(file)).start("masks")
    with file.open("a") as stream:
        stream.write('{"event": "step", "st')
    assert [(e["event"], e["stage"]) for e in read_events(file)] == [("start", "ingest"), ("start", "masks")]


def test_json_lines_are_one_event_a_line() -> None:
    stream = io.StringIO()
    reporter = Reporter(json_lines(stream))
    reporter.start("ingest")
    reporter.warn("two\nlines")
    lines = stream.getvalue().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["start", "warning"]


def test_sinks_added_later_get_later_events() -> None:
    early: list[Event] = []
    late: list[Event] = []
    reporter = Reporter(early.append)
    reporter.start("ingest")
    reporter.add_sink(late.append)
    reporter.start("masks")
    assert (len(early), len(late)) == (2, 1)


def test_the_console_shows_steps_warnings_and_ends() -> None:
    stream = io.StringIO()
    reporter = Reporter(console(stream))
    reporter.start("scene")
    reporter.step(1, 1, loss=0.5, psnr=math.nan)
    reporter.warn("careful")
    reporter.done()
    shown = stream.getvalue()
    assert "1/1" in shown
    assert "loss 0.5" in shown
    assert "psnr" not in shown
    assert "warning: careful" in shown
    assert "done in 0:00" in shown
    assert "\x1b" not in shown  # not a terminal
