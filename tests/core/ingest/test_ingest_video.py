import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from ingest_samples import index_of, make_video, picture

from dpdy_core.errors import BadInput
from dpdy_core.ingest import video as video_module
from dpdy_core.ingest.video import probe_video, read_frames


def decode(path: Path, indices: list[int] | None = None, size: tuple[int, int] | None = None, **options: bool):
    video = probe_video(path)
    chosen = list(range(len(video.times))) if indices is None else indices
    return list(read_frames(video, chosen, size or (video.width, video.height), **options))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("clip.mp4", "libx264", "yuv444p"),
        ("clip.mov", "libx264", "yuv420p"),
        ("clip.mkv", "libx265", "yuv420p"),
        ("clip.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_every_container_gives_its_frames_in_order(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = make_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt)
    video = probe_video(path)
    assert (len(video.times), video.width, video.height, video.rotation) == (24, 64, 48, 0)
    assert video.fps == pytest.approx(24, rel=1e-2)
    assert np.allclose(video.times - video.times[0], np.arange(24) / 24, atol=1e-3)
    for index, rgb in decode(path):
        assert index_of(rgb) == index
        assert np.abs(rgb.astype(int) - picture(index)).mean() < 6


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mkv")
    assert len(probe_video(path.rename(tmp_path / "clip.mp4")).times) == 24
    assert len(probe_video((tmp_path / "clip.mp4").rename(tmp_path / "-i")).times) == 24


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize(("counter_clockwise", "quarters"), [(90, 1), (-90, -1), (180, 2), (0, 0)])
def test_rotation_is_applied_as_a_player_does(
    tmp_path: Path, container: str, counter_clockwise: int, quarters: int
) -> None:
    path = make_video(
        tmp_path / f"clip.{container}", 3, prepare=lambda stream: stream.set_display_rotation(counter_clockwise)
    )
    video = probe_video(path)
    assert video.rotation == -counter_clockwise % 360
    expected = np.rot90(picture(1), quarters)  # np.rot90 turns counter-clockwise too
    assert (video.height, video.width) == expected.shape[:2]
    _, rgb = decode(path)[1]
    assert np.abs(rgb.astype(int) - expected).mean() < 4


def test_mirrored_video_is_mirrored_back(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", 3, prepare=lambda stream: stream.set_display_rotation(0, hflip=True))
    _, rgb = decode(path)[1]
    assert np.abs(rgb.astype(int) - picture(1)[:, ::-1]).mean() < 4


def test_a_phone_matrix_written_by_hand_turns_clockwise(tmp_path: Path) -> None:
    """The track header matrix of an upright phone is [0 1 -1 0]: stored x points down on the screen."""
    path = make_video(tmp_path / "clip.mp4", 3)
    data = bytearray(path.read_bytes())
    identity = b"".join(v.to_bytes(4, "big") for v in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    turned = b"".join((v % 2**32).to_bytes(4, "big") for v in (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000))
    place = data.index(identity, data.index(b"tkhd"))
    data[place : place + len(turned)] = turned
    path.write_bytes(data)
    video = probe_video(path)
    assert (video.width, video.height, video.rotation) == (48, 64, 90)
    _, rgb = decode(path)[1]
    assert np.abs(rgb.astype(int) - np.rot90(picture(1), -1)).mean() < 4


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    ticks = [0, 10, 20, 25, 30, 90, 100, 200, 205, 240]
    path = make_video(tmp_path / "clip.mp4", len(ticks), ticks=ticks)
    video = probe_video(path)
    assert np.allclose(video.times - video.times[0], np.array(ticks) / 240, atol=1e-4)
    assert video.fps == pytest.approx(9.0)
    assert [index_of(rgb) for _, rgb in decode(path, [0, 4, 6, 9])] == [0, 4, 6, 9]


@pytest.mark.parametrize("size", [(65, 47), (33, 25), (64, 31)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_video(tmp_path / "clip.mp4", 3, 65, 47)
    for index, rgb in decode(path, size=size):
        assert rgb.shape == (size[1], size[0], 3)
        assert rgb.dtype == np.uint8
        assert np.abs(rgb.astype(int) - picture(index, *size)).mean() < 6


def test_shrinking_averages_instead_of_picking(tmp_path: Path) -> None:
    stripes = np.zeros((96, 128, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv444p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stripes, "rgb24")))
        container.mux(stream.encode())
    _, rgb = decode(tmp_path / "clip.mp4", size=(32, 24))[0]
    assert np.abs(rgb[:, 2:-2].astype(int) - 127).max() < 8  # picking would give 0 and 255


def test_anamorphic_pixels_become_square(tmp_path: Path) -> None:
    def widen(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    video = probe_video(make_video(tmp_path / "clip.mp4", 3, prepare=widen))
    assert (video.width, video.height) == (128, 48)


def test_seeking_gives_the_same_frames(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", keyint=5)
    straight, jumping = decode(path, [0, 7, 11, 23]), decode(path, [0, 7, 11, 23], seek=True)
    for (i, a), (j, b) in zip(straight, jumping, strict=True):
        assert i == j
        assert np.array_equal(a, b)


def test_frames_are_streamed_until_the_damage(tmp_path: Path) -> None:
    """The first frames come before the file is read to its broken end, and the message says how far it went."""
    path = make_video(tmp_path / "clip.mp4", movflags="faststart", keyint=1)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 2
    data[start : start + 4000] = bytes(4000)
    path.write_bytes(data)
    stream = read_frames(probe_video(path), range(24), (64, 48))
    assert index_of(next(stream)[1]) == 0
    with pytest.raises(BadInput, match=r"only \d+ of its 24 frames"):
        list(stream)


def test_colours_of_untagged_hd_are_bt709(tmp_path: Path) -> None:
    colour = np.zeros((720, 1280, 3), dtype=np.uint8)
    colour[...] = 200, 40, 60
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "4", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(colour, "rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _, rgb = decode(tmp_path / "clip.mp4", [0], size=(64, 36))[0]
    assert np.abs(rgb.reshape(-1, 3).mean(0) - [200, 40, 60]).max() < 5


@pytest.mark.parametrize(("limit", "value", "words"), [("MAX_SECONDS", 0.5, "lasts"), ("MAX_VIDEO_FRAMES", 20, "more")])
def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, words: str) -> None:
    monkeypatch.setattr(video_module, limit, value)
    with pytest.raises(BadInput, match=words):
        probe_video(make_video(tmp_path / "clip.mp4"))


def test_files_named_in_a_video_are_not_opened(tmp_path: Path) -> None:
    """A playlist inside an allowed-looking name must not reach its target, by any demuxer."""
    target = make_video(tmp_path / "secret.mp4")
    for text in ("ffconcat version 1.0\nfile secret.mp4\n", f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"):
        path = tmp_path / "clip.mp4"
        path.write_text(text)
        with pytest.raises(BadInput, match="points to other files"):
            probe_video(path)


def test_no_decoded_frame_stays_in_memory(tmp_path: Path) -> None:
    """Without the garbage collector too: a 4K frame is 12 MB, and what it would collect comes too late."""
    video = probe_video(make_video(tmp_path / "clip.mp4", 60, prepare=lambda stream: stream.set_display_rotation(90)))
    gc.collect()
    gc.disable()
    try:
        for _ in read_frames(video, range(60), (48, 64)):
            assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) < 10
    finally:
        gc.enable()


def test_descriptors_are_closed(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4")
    decode(path, [0, 3])
    still_open = [entry.readlink().name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert "clip.mp4" not in still_open
