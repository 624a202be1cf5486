"""The progress of a stage of several parts."""

import pytest

from dpdy_core.errors import Cancelled
from dpdy_core.ingest.portions import SCALE, Portions
from dpdy_core.ingest.structure import progress_of_tries
from dpdy_core.progress import Event, Reporter


def _events() -> tuple[Reporter, list[Event]]:
    events: list[Event] = []
    reporter = Reporter(events.append, interval=0)
    reporter.start("depth")
    return reporter, events


def test_parts_of_a_stage_share_one_progress() -> None:
    reporter, events = _events()
    portions = Portions(reporter, {"points": 1, "sweep": 2, "masks": 1})
    for name, total in (("points", 5), ("sweep", 8), ("masks", 3)):
        check = portions.part(name)
        for done in range(1, total + 1):
            check(done, total)
    portions.tell(share=0.5)
    steps = [e for e in events if e["event"] == "step"]
    progress = [e["progress"] for e in steps]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert [p for p in progress if p == 1] == [1], "only what tells the numbers ends the stage"
    assert progress[5] == 0.25
    assert progress[13] == 0.75
    assert steps[-1]["numbers"] == {"share": 0.5}
    assert {e["total"] for e in steps} == {SCALE}


def test_a_part_that_falls_out_leaves_a_gap_and_a_stop_is_heard() -> None:
    reporter, events = _events()
    portions = Portions(reporter, {"points": 1, "sweep": 1})
    portions.part("sweep")(1, 2)
    assert events[-1]["progress"] == 0.75
    reporter.request_stop()
    with pytest.raises(Cancelled):
        portions.part("sweep")(2, 2)


def test_further_tries_at_cameras_never_take_progress_back() -> None:
    progress = [progress_of_tries(before, done / 10) for before in range(4) for done in range(11)]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert progress[-1] < 1
