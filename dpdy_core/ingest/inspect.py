"""The capture report: what a capture is and whether it promises a good scene, in seconds, before any training.

Torch-free and quick to import: uploads are inspected in a process of their own.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.ingest.frames import SourceCapture
from dpdy_core.ingest.glance import Glance, glance, look_at_frames
from dpdy_core.ingest.links import GAPS, Link, find_features, groups, link_frames, pairs_in_order
from dpdy_core.ingest.movers import moving_pixels
from dpdy_core.ingest.source import open_source
from dpdy_core.ingest.tiles import first_look, write_pictures
from dpdy_core.ingest.verdict import BLURRED, BLURRED_SHARE, judge
from dpdy_core.ingest.video import Video

_HDR = "the video is HDR: it is brought to SDR and highlights are compressed; film in SDR to avoid that"
_SAME = 0.2  # mean difference of two frames in grey levels, below which one repeats the other
_BREAKS, _BETWEEN = 3, 7  # places where the clip seems to break that are looked at again, and frames there


def inspect_input(path: Path, pictures: Path | None = None) -> dict[str, Any]:
    """The capture report of a video, folder or zip; all that ingest refuses cheaply raises BadInput here too.

    Facts: `kind frames fps duration width height rotation codec variable_frame_rate bits_per_pixel has_poses
    has_depth has_masks has_motion_masks has_splits splits notes` (what the reader noticed); `fps`, `duration`
    (seconds), `codec` and `bits_per_pixel` are None where a folder does not tell. Measured on a few dozen frames at 480
    pixels: `looked_at` (their seconds), `sharpness` (see `_sharpness`: `median lowest blurred_share frames`),
    `brightness` (`median largest_jump`), `motion` (`features` of a frame, and see `_connection`, `_motion`,
    `_moving_share`, `_repeated_share`). `cameras` is None until they are solved. `verdict` is `good`, `risky` or
    `will fail`; `reasons` say why, each with `verdict what remedy`; `warnings` are the notes and reasons as sentences.
    With `pictures` a sheet of frames, tinted where they move, is written to that folder.
    """
    with open_source(path) as source:
        seen = glance(source)
        report = report_of(source, seen)
    if pictures is not None:
        write_pictures(pictures, {"moving": first_look(seen)})
    return report


def inspect_source(source: Video | SourceCapture) -> dict[str, Any]:
    """The capture report of an opened source; decodes a few frames, the first and the last among them."""
    return report_of(source, glance(source))


def report_of(source: Video | SourceCapture, seen: Glance) -> dict[str, Any]:
    """The capture report of an opened source that was looked at."""
    facts = _video_facts(source) if isinstance(source, Video) else _capture_facts(source)
    greys = seen.greys
    pairs = [(seen.spread[a], seen.spread[b]) for a, b in pairs_in_order(len(seen.spread))] + seen.neighbours
    features = {i: find_features(greys[i]) for i in sorted({i for pair in pairs for i in pair})}
    links = link_frames(greys, features, dict.fromkeys(pairs))
    report = {
        **facts,
        "looked_at": [round(float(s), 3) for s in seen.seconds[seen.spread]],
        "sharpness": _sharpness_of([greys[i] for i in seen.spread]),
        "brightness": _brightness(seen, greys, links),
        "motion": {
            "features": round(float(np.median([len(features[i][0]) for i in seen.spread]))),
            **_connection(source, seen, links),
            **_motion(seen, links),
            "moving_share": _moving_share(seen, greys),
            "repeated_share": _repeated_share(seen, greys),
        },
        "cameras": None,
    }
    return judge(report)


def _video_facts(video: Video) -> dict[str, Any]:
    gaps = np.diff(video.times)
    return {
        "kind": "video",
        "frames": len(video.times),
        "fps": round(video.fps, 4),
        "duration": round(video.duration, 4),
        "width": video.width,
        "height": video.height,
        "rotation": video.rotation,
        "codec": video.codec,
        "variable_frame_rate": bool(gaps.max() > 1.5 * np.median(gaps)),
        "notes": [_HDR] if video.is_hdr else [],
        "bits_per_pixel": round(8 * video.path.stat().st_size / len(video.times) / (video.width * video.height), 5),
        **dict.fromkeys(("has_poses", "has_depth", "has_masks", "has_motion_masks", "has_splits"), False),
        "splits": {"train": len(video.times), "val": 0, "test": 0},
    }


def _capture_facts(capture: SourceCapture) -> dict[str, Any]:
    frames = capture.frames
    moments = len({frame.time for frame in frames})
    return {
        "kind": capture.kind,
        "frames": len(frames),
        "fps": capture.fps,
        "duration": round((moments - 1) / capture.fps, 4) if capture.fps else None,
        "width": capture.width,
        "height": capture.height,
        "rotation": 0,
        "codec": None,
        "variable_frame_rate": False,
        "notes": list(capture.warnings),
        "bits_per_pixel": None,
        "has_poses": any(frame.pose is not None for frame in frames),
        "has_depth": any(frame.depth is not None for frame in frames),
        "has_masks": any(frame.mask is not None for frame in frames),
        "has_motion_masks": any(frame.motion_mask is not None for frame in frames),
        "has_splits": capture.has_splits,
        "splits": {
            "train": len(capture.training_frames()),
            "val": len(capture.of_split("val")),
            "test": len(capture.of_split("test")),
        },
    }


def _sharpness_of(greys: list[np.ndarray]) -> dict[str, Any]:
    values = np.array([_sharpness(grey) for grey in greys])
    blurred = values < max(BLURRED, BLURRED_SHARE * float(np.median(values)))
    return {
        "median": round(float(np.median(values)), 2),
        "lowest": round(float(values.min()), 2),
        "blurred_share": round(float(blurred.mean()), 4),
        "frames": [round(float(v), 2) for v in values],
    }


def _sharpness(grey: np.ndarray) -> float:
    """Variance of the second derivative in the direction where it is least, which is that of a smear.

    Scaled to be the variance of the Laplacian (Pech-Pacheco et al. 2000) of a picture that is alike in all directions
    and has the contrast of a usual photo.
    """
    image = grey.astype(np.float32)
    across, down = cv2.Sobel(image, cv2.CV_32F, 2, 0, ksize=1), cv2.Sobel(image, cv2.CV_32F, 0, 2, ksize=1)
    both = cv2.Sobel(image, cv2.CV_32F, 1, 1, ksize=3) / 4
    covariance = np.cov(np.stack([across.ravel(), both.ravel(), down.ravel()]))
    angle = np.arange(16) * np.pi / 16
    direction = np.stack([np.cos(angle) ** 2, np.sin(2 * angle), np.sin(angle) ** 2])
    least = np.einsum("in,ij,jn->n", direction, covariance, direction).min()
    contrast = max(float(grey.std()), 10.0) / 50  # the floor keeps noise in a flat picture from counting as detail
    return float(8 / 3 * least) / contrast**2


def _brightness(seen: Glance, greys: list[np.ndarray], links: list[Link]) -> dict[str, float]:
    """Of the same things in frames that follow each other, where some are recognised; else of the whole pictures."""
    means = np.array([greys[i].mean() / 255 for i in seen.spread])
    following = set(zip(seen.spread, seen.spread[1:], strict=False))
    gains = np.array([link.gain for link in links if (link.first, link.second) in following])
    if len(gains) == 0:
        gains = np.maximum(means[1:], 1e-3) / np.maximum(means[:-1], 1e-3)
    jump = float((1 - np.minimum(gains, 1 / np.maximum(gains, 1e-6))).max())
    return {"median": round(float(np.median(means)), 4), "largest_jump": round(jump, 4)}


def _connection(source: Video | SourceCapture, seen: Glance, links: list[Link]) -> dict[str, Any]:
    """`linked_share`: of the frames spread over the clip, those in the largest group that hangs together by what it
    sees. `breaks`: seconds before which the picture changes as a whole.
    """
    place = {position: i for i, position in enumerate(seen.spread)}
    pairs = [(place[x.first], place[x.second]) for x in links if x.first in place and x.second in place]
    count = len(seen.spread)
    parts = groups(count, pairs)
    breaks = []
    if len(parts) > 1:
        across = [i for i in range(count - 1) if not any(a <= i < b for a, b in pairs)]
        for i in across[:_BREAKS]:
            if _connects(source, seen.index[seen.spread[i]], seen.index[seen.spread[i + 1]]):
                pairs.append((i, i + 1))
            else:
                breaks.append(round(float(seen.seconds[seen.spread[i + 1]]), 2))
        parts = groups(count, pairs)
    return {"linked_share": round(len(parts[0]) / count, 4), "breaks": breaks}


def _connects(source: Video | SourceCapture, first: int, last: int) -> bool:
    """Whether the frames between two of them lead from one to the other."""
    index = np.unique(np.linspace(first, last, _BETWEEN).round().astype(int)).tolist()
    if len(index) < 3:
        return False
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in look_at_frames(source, index)]
    steps = [(i, i + 1) for i in range(len(index) - 1)]
    return len(link_frames(greys, dict(enumerate(map(find_features, greys))), steps)) == len(steps)


def _motion(seen: Glance, links: list[Link]) -> dict[str, float | None]:
    """How the picture moves: `moved` (share of its longer side) and `parallax` (share of the points), each the largest
    over the gaps between frames of the median over the links, for `parallax` the two widest gaps; `disorder`: motion
    between neighbours as a share of that between far frames, None where either is unknown.
    """
    size = max(seen.frames[0].shape[:2])
    rank = {position: i for i, position in enumerate(seen.spread)}
    by_gap: dict[int, list[Link]] = {}
    for link in links:
        if link.first in rank and link.second in rank:
            by_gap.setdefault(rank[link.second] - rank[link.first], []).append(link)
    moved = max((float(np.median([x.moved for x in group])) for group in by_gap.values()), default=0.0) / size
    wide = sorted(by_gap)[-2:]
    parallax = max((float(np.median([x.parallax for x in by_gap[gap]])) for gap in wide), default=0.0)
    close = [x.moved for x in links if (x.first, x.second) in set(seen.neighbours)]
    far = [x.moved for x in by_gap.get(GAPS[-1], by_gap.get(GAPS[-2], []))]
    disorder = float(np.median(close) / max(np.median(far), 0.01 * size)) if close and far else None
    return {
        "moved": round(moved, 5),
        "parallax": round(parallax, 4),
        "disorder": None if disorder is None else round(disorder, 4),
    }


def _moving_share(seen: Glance, greys: list[np.ndarray]) -> float | None:
    """Median share of pixels whose motion over a moment no moving camera explains; None where flow tells nothing."""
    pairs = [moving_pixels(greys[first], greys[second]) for first, second in seen.moments]
    shares = [float(moves.sum() / found.sum()) for moves, found in filter(None, pairs)]
    return round(float(np.median(shares)), 4) if shares else None


def _repeated_share(seen: Glance, greys: list[np.ndarray]) -> float:
    """Share of frames that repeat the one before, in a clip where something moves."""
    steps = [_difference(greys[a], greys[b]) for a, b in zip(seen.spread, seen.spread[1:], strict=False)]
    if max(steps) < 5 * _SAME:
        return 0.0
    return round(float(np.mean([_difference(greys[a], greys[b]) < _SAME for a, b in seen.neighbours])), 4)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())
