"""Video files: readable everywhere, atomic; depth as colours."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from dpdy_core.output.video import depth_colours, disparity_range, mask_colours, open_video, to_bytes

BARS = [(230, 204, 153), (51, 76, 102), (230, 51, 25), (0, 0, 255), (255, 255, 255), (0, 255, 0), (0, 0, 0)]


def bars(height: int = 48, width: int = 32) -> np.ndarray:
    return np.concatenate([np.full((height, width, 3), colour, np.uint8) for colour in BARS], axis=1)


def write(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    with open_video(path, fps) as add:
        for picture in pictures:
            add(picture)


def power_cut() -> Iterator[np.ndarray]:
    yield bars()
    raise RuntimeError("power cut")


def test_the_format_is_what_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, [bars()] * 12, 24000 / 1001)
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert stream.average_rate == Fraction(24000, 1001)
        times = [frame.time for frame in container.decode(video=0)]
    assert np.allclose(np.diff(times), 1001 / 24000)
    assert len(times) == 12


def test_colours_survive_in_two_decoders(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, [bars()] * 3, 10)
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    second = cv2.cvtColor(cv2.VideoCapture(str(path)).read()[1], cv2.COLOR_BGR2RGB)
    for picture in (first, second):
        assert np.abs(picture[24, 16::32].astype(int) - BARS).max() <= 3


def test_odd_sizes_are_padded_with_their_edge(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, [np.full((33, 51, 3), (200, 30, 60), np.uint8)] * 2, 5)
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (34, 52, 3)
    assert np.abs(picture.astype(int) - (200, 30, 60)).max() <= 3


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, [bars()], 5)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write(path, power_cut(), 5)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write(tmp_path / "a.mp4", [], 5)
    assert not list(tmp_path.iterdir())


def test_near_is_red_far_is_blue_and_none_is_black() -> None:
    depth = torch.tensor([[1.0, 10.0, 0.0]])
    near, far, none = depth_colours(depth, 0.1, 1.0)[0].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0]
    assert none.tolist() == [0, 0, 0]


def test_the_range_of_disparity_ignores_outliers_and_holes() -> None:
    depths = [torch.linspace(1, 2, 1000).reshape(10, 100), torch.zeros(10, 100)]
    depths[0][0, 0] = 1e-6
    low, high = disparity_range(depths)
    assert low == pytest.approx(0.505, abs=0.01)
    assert high == pytest.approx(0.98, abs=0.01)
    assert disparity_range([torch.zeros(3, 3)]) == (0.0, 1.0)
    low, high = disparity_range([torch.full((3, 3), 2.0)])
    assert low < high


def test_to_bytes_rounds_and_clamps() -> None:
    assert to_bytes(torch.tensor([[[-1.0, 0.5, 2.0]]])).tolist() == [[[0, 128, 255]]]
    assert mask_colours(torch.tensor([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]
