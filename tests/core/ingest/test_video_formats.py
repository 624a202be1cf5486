"""Videos as phones, cameras and downloads have them, each written here and read back."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from ingest_samples import index_of, make_video, picture

from dpdy_core.errors import BadInput
from dpdy_core.ingest import hdr
from dpdy_core.ingest.video import probe_video, read_frames


def write(
    path: Path, pictures: list[np.ndarray], codec: str, pix_fmt: str, options: dict[str, str], tags: dict[str, int]
) -> Path:
    """A video of RGB pictures (uint8 or uint16) whose stream and frames carry the colour `tags`."""
    height, width = pictures[0].shape[:2]
    conversion = {"colorspace": "dst_colorspace", "color_range": "dst_color_range"}
    chosen = {conversion[key]: value for key, value in tags.items() if key in conversion}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for key, value in tags.items():
            setattr(stream.codec_context, key, value)
        for rgb in pictures:
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
            frame = frame.reformat(format=pix_fmt, **chosen)
            for key in tags:
                if key != "colorspace":
                    setattr(frame, key, tags[key])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def first(path: Path, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return next(read_frames(probe_video(path), [0], size))[1]


# prores needs a mov; AVI and the rest are refused by the demuxer list
CODECS = [
    ("clip.mp4", "libx264", "yuv420p", "h264"),
    ("clip.mov", "libx264", "yuv422p", "h264"),
    ("clip.mkv", "libx264", "yuv420p10le", "h264"),
    ("clip.mp4", "libx265", "yuv420p", "hevc"),
    ("clip.mov", "libx265", "yuv420p10le", "hevc"),
    ("clip.webm", "libvpx-vp9", "yuv420p", "vp9"),
    ("clip.mp4", "libvpx-vp9", "yuv420p", "vp9"),
    ("clip.webm", "libvpx", "yuv420p", "vp8"),
    ("clip.mp4", "libsvtav1", "yuv420p", "av1"),
    ("clip.webm", "libsvtav1", "yuv420p10le", "av1"),
    ("clip.mkv", "libsvtav1", "yuv420p", "av1"),
    ("clip.mov", "prores_ks", "yuv422p10le", "prores"),
    ("clip.mov", "mjpeg", "yuvj420p", "mjpeg"),
]


@pytest.mark.parametrize(("name", "encoder", "pix_fmt", "codec"), CODECS, ids=lambda value: str(value))
def test_codecs(tmp_path: Path, name: str, encoder: str, pix_fmt: str, codec: str) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder} to write the sample with")
    path = make_video(tmp_path / name, 12, codec=encoder, pix_fmt=pix_fmt)
    video = probe_video(path)
    assert (video.codec, len(video.times), video.width, video.height) == (codec, 12, 64, 48)
    assert not video.is_hdr
    assert not video.is_interlaced
    for index, rgb in read_frames(video, [0, 5, 11], (64, 48)):
        assert abs(index_of(rgb) - index) <= (codec in ("vp8", "mjpeg"))
        assert np.abs(rgb.astype(int) - picture(index)).mean() < 8


@pytest.mark.parametrize("color_range", [1, 2])
def test_limited_and_full_range_look_the_same(tmp_path: Path, color_range: int) -> None:
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:, :20], colours[:, 20:40], colours[:, 40:] = (200, 40, 60), 255, 16
    tags = {"color_range": color_range}
    rgb = first(write(tmp_path / "clip.mp4", [colours] * 2, "libx264", "yuv420p", {"crf": "2"}, tags))
    for column in (8, 30, 54):
        assert np.abs(rgb[24, column].astype(int) - colours[24, column]).max() <= 4


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_hdr_is_brought_to_sdr(tmp_path: Path, transfer: int) -> None:
    codes = np.linspace(0, 1, 64)
    ramp = np.broadcast_to((codes * 65535).astype(np.uint16)[None, :, None], (48, 64, 3)).copy()
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9}
    # two frames are too few for the time stamps of B frames: x265 leaves some unset, and at times they can't be written
    options = {"crf": "2", "x265-params": "log-level=none:bframes=0"}
    path = write(tmp_path / "clip.mp4", [ramp] * 2, "libx265", "yuv420p10le", options, tags)
    assert probe_video(path).is_hdr
    rgb = first(path)
    assert np.abs(rgb.astype(int) - hdr.to_sdr(ramp, transfer, 9)).max() <= 3
    assert np.ptp(rgb, axis=2).max() <= 2  # grey stays grey
    assert (np.diff(rgb[24, :, 1].astype(int)) >= -1).all()


def test_tone_mapping_against_the_standards() -> None:
    """PQ codes of BT.2408's table 1, the EETF's ends and its untouched part, BT.709 red through BT.2020 primaries."""
    assert hdr.nits_to_pq(np.array([0.0, 26.0, 100.0, 203.0, 1000.0, 10000.0])) == pytest.approx(
        [0, 0.3805, 0.5081, 0.5807, 0.7518, 1], abs=2e-3
    )
    assert hdr.pq_to_nits(hdr.nits_to_pq(np.array([3.0, 500.0]))) == pytest.approx([3, 500])

    def shown(nits: np.ndarray) -> np.ndarray:
        code = np.rint(65535 * hdr.nits_to_pq(nits)).astype(np.uint16)
        return hdr.to_sdr(code.reshape(1, 1, 3), hdr.PQ, 9)[0, 0]

    assert shown(np.full(3, 1000.0)).tolist() == [255, 255, 255]
    assert shown(np.full(3, 4000.0)).tolist() == [255, 255, 255]
    assert shown(np.full(3, 26.0)) == pytest.approx(255 * (26 / 203) ** (1 / 2.4), abs=1)
    to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # BT.2087
    red = np.array([50.0, 5.0, 5.0])
    assert shown(to_bt2020 @ red) == pytest.approx(255 * (red / 203) ** (1 / 2.4), abs=2)


def test_hlg_reference_white_stays_bright() -> None:
    """75 % HLG is diffuse white (BT.2408); a fifth of the light less remains for highlights."""
    code = np.full((1, 1, 3), round(0.75 * 65535), np.uint16)
    assert 200 < hdr.to_sdr(code, hdr.HLG, 9)[0, 0, 1] < 245
    assert hdr.to_sdr(np.full((1, 1, 3), 65535, np.uint16), hdr.HLG, 9).min() == 255


def interlaced(path: Path) -> Path:
    """An edge that moves by 3 pixels a field, the top field first."""

    def edge(x: int) -> np.ndarray:
        row = np.where(np.arange(128) >= x, 200, 0).astype(np.uint8)
        return np.broadcast_to(row[None, :, None], (96, 128, 3))

    pictures = []
    for index in range(12):
        woven = edge(20 + 6 * index).copy()
        woven[1::2] = edge(23 + 6 * index)[1::2]
        pictures.append(woven)
    options = {"crf": "2", "flags": "+ildct+ilme", "x264-params": "tff=1"}
    return write(path, pictures, "libx264", "yuv420p", options, {})


def combing(rgb: np.ndarray) -> float:
    green = rgb[..., 1].astype(float)
    return float(np.abs(green[1:-1] - (green[:-2] + green[2:]) / 2).mean())


@pytest.mark.parametrize("seek", [False, True])
def test_interlaced_video_is_deinterlaced_in_place(tmp_path: Path, seek: bool) -> None:
    video = probe_video(interlaced(tmp_path / "clip.mp4"))
    assert video.is_interlaced
    for index, rgb in read_frames(video, [3, 7, 11], (128, 96), seek=seek):
        assert combing(rgb) < 0.5
        assert abs(int((rgb[48, :, 1] > 100).argmax()) - (20 + 6 * index)) <= 3
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert combing(list(container.decode(video=0))[3].to_ndarray(format="rgb24")) > 2


def test_pictures_in_another_file_are_refused(tmp_path: Path) -> None:
    entry = b"\0\0\0\x0curl \0\0\0\x01"
    inside = make_video(tmp_path / "clip.mov")
    place = inside.read_bytes().index(entry)
    outside = (26).to_bytes(4, "big") + b"url \0\0\0\0secret.mov\0\0\0\0"
    data = bytearray(inside.read_bytes())
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = data.rindex(kind, 0, place) - 4
        data[start : start + 4] = (int.from_bytes(data[start : start + 4], "big") + 14).to_bytes(4, "big")
    data[place : place + 12] = outside
    inside.write_bytes(data)
    with pytest.raises(BadInput, match="in another file"):
        probe_video(inside)


def test_declared_frames_are_counted_before_the_demuxer_believes_them(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4")
    data = bytearray(path.read_bytes())
    place = data.index(b"stsz") + 12
    assert int.from_bytes(data[place : place + 4], "big") == 24
    data[place : place + 4] = (10**9).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(BadInput, match="declares 1000000000 frames"):
        probe_video(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound: Any = container.add_stream("aac", rate=44100)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for index in range(20):
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), "fltp", "mono")
            tone.rate, tone.pts = 44100, index * 1024
            container.mux(sound.encode(tone))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), "rgb24").reformat(format="yuvj420p")))
        container.mux([*cover.encode(), *sound.encode()])
    with pytest.raises(BadInput, match="sound but no picture"):
        probe_video(tmp_path / "song.mp4")
