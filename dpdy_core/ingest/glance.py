"""A few dozen small frames spread over a capture, in one pass: all that the capture report looks at. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from dpdy_core.ingest.frames import SourceCapture
from dpdy_core.ingest.maps import check_content
from dpdy_core.ingest.size import fitted_size
from dpdy_core.ingest.video import Video, read_frames

SIZE = 480  # longer side of the frames looked at: sharpness and pixel distances are those at this size
FEWEST, MOST = 32, 96  # frames spread over the clip, and
PER_SECOND = 1.0  # as many as this between the two
SPOTS = 8  # of them, where neighbours are looked at too
MOMENT = 0.2  # seconds, about: how far apart two frames are between which things move visibly but not far
HEAVY = 10**10  # pixels of a video that is not decoded but for its keyframes and a few after them: 13 s on a core
ASSUMED_FPS = 24.0


@dataclass(frozen=True)
class Glance:
    """N frames of the F that a capture has to train on, in time order."""

    index: list[int]  # (N,) which of the F
    frames: list[np.ndarray]  # (N) of (H, W, 3) uint8 RGB, the longer side at most SIZE
    seconds: np.ndarray  # (N,) from the first frame; assumes 24 a second where the capture does not tell
    spread: list[int]  # positions among the N of those evenly spread
    neighbours: list[tuple[int, int]]  # positions of frames that follow each other in the capture
    moments: list[tuple[int, int]]  # positions of frames about MOMENT apart

    @property
    def greys(self) -> list[np.ndarray]:
        """(N) of (H, W) uint8."""
        return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames]


def glance(source: Video | SourceCapture) -> Glance:
    """Look at the first frame, the last and some between. Raises BadInput where one cannot be decoded, or its depth or
    mask holds nothing.
    """
    seconds = frame_seconds(source)
    last = len(seconds) - 1
    keys = np.flatnonzero(source.keyframes) if isinstance(source, Video) else np.zeros(0, int)
    heavy = isinstance(source, Video) and len(keys) > SPOTS and len(seconds) * source.width * source.height > HEAVY
    wanted = int(np.clip(PER_SECOND * seconds[-1], FEWEST, MOST))
    spread = _spread(last, wanted, keys, heavy)
    ahead = max(1, round(MOMENT * last / max(seconds[-1], 1e-6)))
    spots = [spread[i] for i in np.linspace(0, len(spread) - 1, min(SPOTS, len(spread))).round().astype(int)]
    if heavy:
        spots = [int(keys[np.abs(keys - spot).argmin()]) for spot in spots]
    spots = sorted({min(spot, last - 1) for spot in spots})
    index = sorted({*spread, *(i + 1 for i in spots), *spots, *(min(i + ahead, last) for i in spots)})
    if isinstance(source, SourceCapture):
        some = [source.training_frames()[i] for i in spots]
        check_content([f.depth for f in some if f.depth], [f.mask for f in some if f.mask])
    at = {i: position for position, i in enumerate(index)}
    return Glance(
        index=index,
        frames=list(look_at_frames(source, index)),
        seconds=seconds[index],
        spread=[at[i] for i in spread],
        neighbours=[(p, p + 1) for p in range(len(index) - 1) if index[p + 1] == index[p] + 1],
        moments=[(at[i], at[min(i + ahead, last)]) for i in spots],
    )


def frame_seconds(source: Video | SourceCapture) -> np.ndarray:
    """(F,) when each frame to train on was taken, seconds from the first."""
    if isinstance(source, Video):
        return np.asarray(source.times - source.times[0])
    times = np.array([frame.time for frame in source.training_frames()])
    moments = max(len(np.unique(times)) - 1, 1)
    return (times - times[0]) / max(float(np.ptp(times)), 1e-9) * moments / (source.fps or ASSUMED_FPS)


def look_at_frames(source: Video | SourceCapture, index: list[int]) -> Iterable[np.ndarray]:
    """(H, W, 3) uint8 RGB of the frames to train on at the rising `index`, one by one, at most SIZE long."""
    size = fitted_size(source.width, source.height, SIZE)
    if isinstance(source, Video):
        yield from (frame for _, frame in read_frames(source, index, size, seek=True))
        return
    frames = source.training_frames()
    for i in index:
        yield cv2.resize(source.picture(frames[i]), size, interpolation=cv2.INTER_AREA)


def _spread(last: int, wanted: int, keys: np.ndarray, only_keys: bool) -> list[int]:
    """Up to `wanted` of the frames 0 to `last`, ends included; one of `keys` where one is near: it decodes alone."""
    even = np.unique(np.linspace(0, last, min(wanted, last + 1)).round().astype(int))
    reach = last if only_keys else last / (4 * wanted)
    chosen = {0, last}
    for i in even[1:-1]:
        nearest = keys[np.abs(keys - i).argmin()] if len(keys) else i
        chosen.add(int(nearest if abs(nearest - i) <= reach else i))
    return sorted(chosen)
