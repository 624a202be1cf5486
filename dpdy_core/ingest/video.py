"""Videos through PyAV: probed without trust, streamed frame by frame, upright, with square pixels. Torch-free."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from dpdy_core.errors import BadInput
from dpdy_core.ingest.boxes import check_boxes, missing_bytes
from dpdy_core.ingest.hdr import HLG, PQ, to_sdr
from dpdy_core.ingest.images import MAX_IMAGE_PIXELS, check_size
from dpdy_core.ingest.signature import why_unreadable

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv"})
MAX_SECONDS = 20 * 60
MAX_VIDEO_FRAMES = 72_000

# Playlists, concat scripts and image sequences make FFmpeg open other files: only plain containers may be probed.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"
_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "h263", "ffv1", "dnxhd")
_UNSPECIFIED, _BT709_HEIGHT, _BT2020 = 2, 720, 9


@dataclass(frozen=True)
class Video:
    """What is known of a video before its frames are taken."""

    path: Path
    times: np.ndarray  # (F,) seconds, rising, of all shown frames
    keyframes: np.ndarray  # (F,) bool, where decoding can begin
    stored: tuple[int, int]  # width and height as coded
    width: int  # upright, with square pixels
    height: int
    orientation: tuple[int, int, bool]  # sign across, sign down, x and y swapped: see `_orientation`
    codec: str
    is_hdr: bool
    is_interlaced: bool
    tags: dict[str, str]  # of the file and the picture's track

    @property
    def rotation(self) -> int:
        """Degrees clockwise that the player turns the stored frames by."""
        across, down, turned = self.orientation
        return (90 if across < 0 else 270) if turned else (180 if across < 0 and down < 0 else 0)

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return float(self.times[-1] - self.times[0])

    @property
    def fps(self) -> float:
        """Mean rate."""
        return (len(self.times) - 1) / self.duration


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    check_boxes(path, MAX_VIDEO_FRAMES)
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        container = av.open(str(path.resolve()), mode="r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise why_unreadable(path, getattr(error, "strerror", None) or "unknown format") from error
    with container:
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not pictures:
            has = "sound but no picture" if container.streams.audio else "no video track"
            raise BadInput(f"{path.name} has {has}", "give a video of the moving scene")
        stream = pictures[0]
        context = stream.codec_context
        if context is None or context.codec.canonical_name not in _CODECS:
            name = "an unknown codec" if context is None else f"the codec {context.codec.canonical_name}"
            raise BadInput(f"{path.name} uses {name}", "convert it to H.264 in an mp4 file")
        check_size(max(stream.width, 1), max(stream.height, 1), path.name)
        context.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}  # the stream may be larger than its container says
        stream.thread_type = "AUTO"
        yield container, stream


def probe_video(path: Path) -> Video:
    """Probe the container, list the times of all frames from the packets and decode the first frame.

    Raises BadInput for what is not a video of at least two frames, whole, and within the limits.
    """
    with _opened(path) as (container, stream):
        times, keyframes = _frame_times(path, container, stream)
    with _opened(path) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except av.error.FFmpegError as error:
            raise _broken_at(path, times, 0) from error
        if first is None:
            raise _broken_at(path, times, 0)
        codec = stream.codec_context.codec.canonical_name
        tags = {**container.metadata, **stream.metadata}
        width, height = round(first.width * float(stream.sample_aspect_ratio or 1)), first.height
    orientation = _orientation(first)
    if orientation[2]:
        width, height = height, width
    check_size(width, height, path.name)
    return Video(
        path=path,
        times=times,
        keyframes=keyframes,
        stored=(first.width, first.height),
        width=width,
        height=height,
        orientation=orientation,
        codec=codec,
        is_hdr=int(first.color_trc) in (PQ, HLG),
        is_interlaced=first.interlaced_frame,
        tags=tags,
    )


def _frame_times(path: Path, container: InputContainer, stream: VideoStream) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and key flags of the shown frames, from the packets alone."""
    declared = (container.duration or 0) / av.time_base
    _check_duration(path, declared)
    start = (container.start_time or 0) / av.time_base
    found: dict[int, bool] = {}
    end, damaged = 0.0, False
    for packet in container.demux():
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.size == 0 or packet.is_corrupt:
            damaged |= packet.is_corrupt
            continue
        end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base) - start)
        if packet.stream_index == stream.index and not packet.is_discard:
            found[stamp] = packet.is_keyframe
            if len(found) > MAX_VIDEO_FRAMES:
                raise BadInput(f"{path.name} has more than {MAX_VIDEO_FRAMES} frames", "cut it to the part of interest")
    stamps = sorted(found)
    times = np.array(stamps, dtype=np.float64) * float(stream.time_base or 0)
    if container.format.name.startswith("matroska"):  # sizes of its parts are optional, the duration is not
        slack = 0.1 + 0.1 * declared + (float(np.diff(times).max()) if len(times) > 1 else 0)
        damaged |= declared - end > slack
    else:
        damaged |= missing_bytes(path) > 0
    if damaged:
        raise BadInput(
            f"{path.name} is cut off: of its {declared:.2f} s only {end:.2f} s ({len(times)} frames) are there",
            "copy or upload the whole file again",
        )
    if len(times) < 2 or times[-1] <= times[0]:
        raise BadInput(f"{path.name} has only {len(times)} frame", "give a moving clip of a few seconds")
    _check_duration(path, float(times[-1] - times[0]))
    return times, np.array([found[stamp] for stamp in stamps])


def _check_duration(path: Path, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise BadInput(
            f"{path.name} lasts {seconds / 60:.0f} minutes, more than {MAX_SECONDS // 60}",
            "cut it to the part of interest: a few seconds are best",
        )


def _broken_at(path: Path, times: np.ndarray, index: int) -> BadInput:
    seconds = float(times[index] - times[0])
    return BadInput(
        f"{path.name} is damaged: only {index} of its {len(times)} frames ({seconds:.2f} s) could be decoded",
        "copy or upload it again, cut it before the damage, or convert it to H.264 mp4",
    )


def read_frames(
    video: Video, indices: Sequence[int], size: tuple[int, int], seek: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """(index, (H, W, 3) uint8 RGB at `size` = (width, height)) of the rising `indices`.

    Streams: one decoded frame is held at a time. With `seek` it jumps to the last keyframe before each wanted frame
    (damage in between then goes unseen). Raises BadInput if the stream breaks before the last wanted frame.
    """
    tick = 1e-6
    with _opened(video.path) as (container, stream):
        frames, frame, now = _pictures(video, container, stream), None, -np.inf
        for index in indices:
            key = int(np.flatnonzero(video.keyframes[: index + 1])[-1]) if video.keyframes[: index + 1].any() else 0
            if seek and video.times[key] > now + tick:
                container.seek(round(video.times[key] / float(stream.time_base or 1)), stream=stream)
                frames, now = _pictures(video, container, stream), -np.inf
            while frame is None or now < video.times[index] - tick:
                try:
                    frame = next(frames)
                except (StopIteration, av.error.FFmpegError) as error:
                    seen = int(np.searchsorted(video.times, now + tick))
                    raise _broken_at(video.path, video.times, min(seen, len(video.times) - 1)) from error
                now = frame.time if frame.pts is not None else now
            yield index, _upright(video, frame, size)


def _pictures(video: Video, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decoded frames, deinterlaced where they are flagged as interlaced, one a frame (FFmpeg's bwdif)."""
    if not video.is_interlaced:
        yield from container.decode(stream)
        return
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    for frame in container.decode(stream):
        _check_stored_size(video, frame)
        graph.vpush(frame)
        yield from _pulled(graph)
    graph.vpush(None)
    yield from _pulled(graph)


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _check_stored_size(video: Video, frame: VideoFrame) -> None:
    if (frame.width, frame.height) != video.stored:
        raise BadInput(
            f"{video.path.name} changes its picture size at {frame.time or 0:.2f} s"
            f" (from {video.stored[0]}x{video.stored[1]} to {frame.width}x{frame.height})",
            "convert it to one size",
        )


def _orientation(frame: VideoFrame) -> tuple[int, int, bool]:
    """The display matrix as (sign across, sign down, whether x and y are swapped) of the displayed picture.

    The matrix [a b; c d] sends stored (x, y) to displayed (a x + c y, b x + d y) (ISO/IEC 14496-12, 8.3.2.3). To be
    asked of one frame only: PyAV ties it into a cycle, and it stays in memory until the garbage collector runs.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 1, False
    a, b, _, c, d = np.frombuffer(memoryview(data), dtype=np.int32)[:5].astype(float)
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if turned else (a, d)
    return (-1 if across < 0 else 1), (-1 if down < 0 else 1), turned


def _upright(video: Video, frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB as a player shows it, at `size` (width, height)."""
    _check_stored_size(video, frame)
    across, down, turned = video.orientation
    width, height = size[::-1] if turned else size
    # Untagged HD is BT.709 by custom; the converter would take BT.601.
    untagged_hd = int(frame.colorspace) == _UNSPECIFIED and min(frame.width, frame.height) >= _BT709_HEIGHT
    matrix: int | None = Colorspace.ITU709 if untagged_hd else None
    if video.is_hdr:
        matrix = _BT2020 if int(frame.colorspace) == _UNSPECIFIED else None
        wide = frame.reformat(width, height, "rgb48le", src_colorspace=matrix, interpolation="LANCZOS").to_ndarray()
        rgb = to_sdr(wide, int(frame.color_trc), int(frame.color_primaries))
    else:
        rgb = frame.reformat(width, height, "rgb24", src_colorspace=matrix, interpolation="LANCZOS").to_ndarray()
    if turned:
        rgb = rgb.transpose(1, 0, 2)
    return np.ascontiguousarray(rgb[::down, ::across])
