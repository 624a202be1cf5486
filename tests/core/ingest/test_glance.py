from pathlib import Path

import numpy as np
import pytest
from ingest_samples import make_images, make_posed, make_video

from dpdy_core.ingest import glance as module
from dpdy_core.ingest.glance import FEWEST, frame_seconds, glance
from dpdy_core.ingest.source import open_source
from dpdy_core.ingest.tiles import SIDE, first_look


def test_a_short_clip_is_seen_whole(tmp_path: Path) -> None:
    with open_source(make_images(tmp_path / "c", 7)) as source:
        seen = glance(source)
    assert seen.index == list(range(7))
    assert seen.neighbours == [(i, i + 1) for i in range(6)]
    assert seen.seconds == pytest.approx(np.arange(7) / 24)


def test_a_long_clip_is_seen_evenly_from_end_to_end(tmp_path: Path) -> None:
    with open_source(make_video(tmp_path / "clip.mp4", 200)) as source:
        seen = glance(source)
    spread = [seen.index[p] for p in seen.spread]
    assert (spread[0], spread[-1], len(spread)) == (0, 199, FEWEST)
    assert np.diff(spread).max() <= 199 / (FEWEST - 1) + 1
    assert all(seen.index[b] - seen.index[a] == 1 for a, b in seen.neighbours)
    assert seen.neighbours
    assert all(seen.index[b] - seen.index[a] == 5 for a, b in seen.moments[:-1])  # 0.2 s at 24 a second


def test_of_a_heavy_video_only_keyframes_and_what_follows_them_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAVY", 0)
    with open_source(make_video(tmp_path / "clip.mp4", 240, keyint=20)) as source:
        seen = glance(source)
        keys = np.flatnonzero(source.keyframes)
    near = {int(k) + ahead for k in keys for ahead in (0, 1, 5)}
    assert set(seen.index) <= near | {0, 238, 239}
    assert len(seen.spread) == len(keys) + 1


def test_seconds_of_a_capture_follow_its_times_and_rate(tmp_path: Path) -> None:
    with open_source(make_posed(tmp_path / "c", 6, fps=10)) as source:
        assert frame_seconds(source) == pytest.approx(np.arange(6) / 10)


def test_the_first_look_is_a_sheet_of_frames(tmp_path: Path) -> None:
    with open_source(make_images(tmp_path / "c", 7)) as source:
        sheet = first_look(glance(source))
    assert sheet is not None
    assert sheet.shape[1] % 4 == 0
    assert sheet.shape[1] <= 4 * SIDE
    assert sheet.any()
