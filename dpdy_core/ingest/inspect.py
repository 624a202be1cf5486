"""The capture report: what a capture is and whether it promises a good scene, in seconds, before any training.

Torch-free and quick to import: uploads are inspected in a process of their own.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dpdy_core.ingest.frames import SourceCapture
from dpdy_core.ingest.images import fitted_size
from dpdy_core.ingest.maps import check_content
from dpdy_core.ingest.source import open_source
from dpdy_core.ingest.video import Video, read_frames

_SAMPLES = 8
_SAMPLE_SIZE = 480  # the longer side at which sharpness is measured: the measure depends on it

_FEW_FRAMES = 12
_SMALL = 160  # shorter side, pixels
_SLOW = 5.0  # frames per second
_LONG = 60.0  # seconds
_BLURRED = 20.0  # variance of the Laplacian on 8-bit grey, contrast-normalised
_BLURRED_SHARE = 0.2  # of the median
_JUMP = 0.15  # of the mean brightness, between neighbouring samples
_DARK, _BRIGHT = 0.06, 0.94


def inspect_input(path: Path) -> dict[str, Any]:
    """The capture report of a video, folder or zip; all that ingest refuses cheaply raises BadInput here too.

    `kind frames fps duration width height rotation codec variable_frame_rate has_poses has_depth has_masks
    has_motion_masks has_splits splits sharpness brightness warnings verdict`; `fps`, `duration` (seconds) and `codec`
    are None where a folder does not tell; `warnings` are sentences with a remedy; `verdict` is `good` or `risky`.
    """
    with open_source(path) as source:
        return inspect_source(source)


def inspect_source(source: Video | SourceCapture) -> dict[str, Any]:
    """The capture report of an opened source; decodes a few frames, the first and the last among them."""
    facts = _video_facts(source) if isinstance(source, Video) else _capture_facts(source)
    samples = _video_samples(source) if isinstance(source, Video) else _capture_samples(source)
    greys = [cv2.cvtColor(sample, cv2.COLOR_RGB2GRAY) for sample in samples]
    sharpness = np.array([_sharpness(grey) for grey in greys])
    brightness = np.array([grey.mean() / 255 for grey in greys])
    jumps = np.abs(np.diff(brightness)) / np.maximum(brightness[1:], brightness[:-1]).clip(1e-3)
    measured = {
        "sharpness": {"median": round(float(np.median(sharpness)), 2), "lowest": round(float(sharpness.min()), 2)},
        "brightness": {
            "median": round(float(np.median(brightness)), 4),
            "largest_jump": round(float(jumps.max()), 4),
        },
    }
    notes = list(source.warnings) if isinstance(source, SourceCapture) else []
    if isinstance(source, Video) and source.is_hdr:
        notes.append("the video is HDR: it is brought to SDR and highlights are compressed; film in SDR to avoid that")
    risks = _risks(facts, measured)
    return {**facts, **measured, "warnings": notes + risks, "verdict": "risky" if risks else "good"}


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


def _video_samples(video: Video) -> list[np.ndarray]:
    """Frames spread over the video, keyframes where there are some nearby: they decode without their neighbours."""
    last = len(video.times) - 1
    spread = np.unique(np.linspace(0, last, min(_SAMPLES, last + 1)).round().astype(int))
    keys = np.flatnonzero(video.keyframes)
    reach = last / (2 * _SAMPLES)
    chosen = {0, last}
    for index in spread[1:-1]:
        nearest = keys[np.abs(keys - index).argmin()] if len(keys) else index
        chosen.add(int(nearest if abs(nearest - index) <= reach else index))
    size = fitted_size(video.width, video.height, _SAMPLE_SIZE)
    return [frame for _, frame in read_frames(video, sorted(chosen), size, seek=True)]


def _capture_samples(capture: SourceCapture) -> list[np.ndarray]:
    frames = capture.training_frames()
    spread = np.unique(np.linspace(0, len(frames) - 1, min(_SAMPLES, len(frames))).round().astype(int))
    check_content([d for i in spread if (d := frames[i].depth)], [m for i in spread if (m := frames[i].mask)])
    size = fitted_size(capture.width, capture.height, _SAMPLE_SIZE)
    return [cv2.resize(capture.picture(frames[i]), size, interpolation=cv2.INTER_AREA) for i in spread]


def _sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000), as if the picture's contrast were that of a usual photo."""
    contrast = max(float(grey.std()), 10.0) / 50  # the floor keeps noise in a flat picture from counting as detail
    return float(cv2.Laplacian(grey, cv2.CV_64F).var()) / contrast**2


def _risks(facts: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """Sentences: what may spoil the result, and the remedy."""
    sharp, light = measured["sharpness"], measured["brightness"]
    training, fps, duration = facts["splits"]["train"], facts["fps"], facts["duration"]
    checks = (
        (training < _FEW_FRAMES, f"there are only {training} training frames; film for two seconds or longer"),
        (
            min(facts["width"], facts["height"]) < _SMALL,
            f"the picture is small ({facts['width']}x{facts['height']}); film or export at 480 lines or more",
        ),
        (
            fps is not None and fps < _SLOW,
            f"the frame rate is low ({fps or 0:.1f} per second); things move far between frames: film at 24 or more",
        ),
        (
            duration is not None and duration > _LONG,
            f"the clip is long ({duration or 0:.0f} s); details get lost: cut it to the part of interest",
        ),
        (sharp["median"] < _BLURRED, "the frames look blurred; move the camera slowly and film in good light"),
        (
            sharp["lowest"] < _BLURRED_SHARE * sharp["median"],
            "some frames are much more blurred than the rest; avoid sudden camera motion, or cut them out",
        ),
        (
            light["largest_jump"] > _JUMP,
            f"the brightness jumps by {light['largest_jump']:.0%}; lock exposure and white balance, avoid cuts",
        ),
        (light["median"] < _DARK, "the picture is very dark; film with more light"),
        (light["median"] > _BRIGHT, "the picture is over-exposed; lower the exposure"),
    )
    return [message for applies, message in checks if applies]
