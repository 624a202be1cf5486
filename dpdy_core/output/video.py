"""H.264 files that play everywhere, and pictures of numbers: depth and masks as colours."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor

BT709 = 1  # ITU-T H.273 code points of primaries, transfer and matrix
QUALITY = "18"  # x264 constant rate factor: visually lossless


@contextmanager
def open_video(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends (H, W, 3) uint8 RGB frames to an mp4 at `path`.

    H.264 yuv420p, constant frame rate, BT.709, index at the front. Odd sizes are padded with the last row or column.
    The file appears under its name when the block ends well; if it fails, nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            writer = _Encoder(container, fps)
            yield writer.add
            writer.close()
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Encoder:
    """One H.264 stream of a container, opened by its first frame."""

    def __init__(self, container: av.container.OutputContainer, fps: float) -> None:
        self._container = container
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream: av.VideoStream | None = None
        self._count = 0

    def add(self, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._open(picture.shape[1], picture.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = self._count, 1 / self._rate
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._stream is None:
            raise ValueError("a video needs at least one frame")
        self._container.mux(self._stream.encode(None))

    def _open(self, width: int, height: int) -> av.VideoStream:
        # Equal frames give equal bytes: x264's fast macroblock-tree code rounds by the alignment of its buffers.
        options = {"crf": QUALITY, "preset": "medium", "threads": "1", "x264-params": "cpu-independent=1"}
        stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / self._rate
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = 1  # limited ("MPEG") range
        return stream


def to_bytes(colours: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of colours (H, W, 3) in [0, 1], clamped and rounded."""
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def disparity_range(depths: list[Tensor]) -> tuple[float, float]:
    """Low and high disparity (1 / planar z) of `depths`: the 2nd and 98th percentile of all that is positive.

    Taken once for a whole clip, so that its colours do not flicker. Depth maps without any depth give (0, 1).
    """
    values = torch.cat([depth[depth > 0].flatten() for depth in depths])
    if not len(values):
        return 0.0, 1.0
    disparity = 1 / values.double()
    disparity = disparity[:: max(1, len(disparity) // 1_000_000)]  # torch.quantile takes at most 2^24 numbers
    low, high = torch.quantile(disparity, disparity.new_tensor([0.02, 0.98])).tolist()
    return low, max(high, low * (1 + 1e-3) + 1e-9)


def depth_colours(depth: Tensor, low: float, high: float) -> np.ndarray:
    """(H, W, 3) uint8 of planar depth (H, W): turbo colours of disparity, near red, far blue, none black."""
    disparity = torch.where(depth > 0, 1 / depth.clamp(min=1e-9), torch.zeros_like(depth))
    level = ((disparity - low) / (high - low)).clamp(0, 1)
    grey = (level * 255).round().to(torch.uint8).cpu().numpy()
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    colours[(depth <= 0).cpu().numpy()] = 0
    return colours


def mask_colours(mask: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of a mask (H, W) bool: white where it holds."""
    return (mask.to(torch.uint8) * 255)[..., None].expand(-1, -1, 3).cpu().numpy()


def write_jpeg(path: Path, picture: np.ndarray, quality: int = 90) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG."""
    path.write_bytes(jpeg_bytes(picture, quality))


def jpeg_bytes(picture: np.ndarray, quality: int = 90) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG data."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
