"""What a file's tags tell of the camera that took it. Tags are hints: nothing fails because of them. Torch-free."""

import math
from collections.abc import Mapping
from pathlib import Path

from dpdy_core.errors import BadInput
from dpdy_core.ingest.images import opened

_EXIF_IFD, _FOCAL_35MM = 0x8769, 0xA405
_QUICKTIME_FOCAL = "camera.focal_length.35mm_equivalent"  # Apple's key ends so
_FILM_DIAGONAL = math.hypot(36, 24)  # millimetres
_SENSOR_WIDTH = 0.8 * _FILM_DIAGONAL  # of a 4:3 sensor of that diagonal; wide pictures are cut from its full width
_PLAUSIBLE = (8.0, 600.0)  # millimetres


def focal_of_tags(tags: Mapping[str, str]) -> float | None:
    """Focal length in millimetres for 35 mm film, from a video's tags."""
    for key, value in tags.items():
        if key.lower().endswith(_QUICKTIME_FOCAL):
            return _plausible(value)
    return None


def focal_of_image(path: Path) -> float | None:
    """Focal length in millimetres for 35 mm film (EXIF tag FocalLengthIn35mmFilm)."""
    try:
        with opened(path) as image:
            return _plausible(image.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM))
    except BadInput:  # the reader of the pixels says what is wrong
        return None


def _plausible(value: object) -> float | None:
    try:
        millimetres = float(str(value))
    except ValueError:
        return None
    return millimetres if _PLAUSIBLE[0] <= millimetres <= _PLAUSIBLE[1] else None


def focal_share(millimetres: float, width: int, height: int) -> float:
    """The focal length over the picture's longer side, from `millimetres` for 35 mm film.

    The equivalent is that of the diagonal (CIPA DCG-001); a picture wider than 3:2 is cut from a 4:3 sensor. Stabilised
    video is cut narrower still: the truth may lie 10 to 20 % above.
    """
    longer, shorter = max(width, height), min(width, height)
    side = _FILM_DIAGONAL * longer / math.hypot(longer, shorter)
    return millimetres / (side if 2 * longer <= 3 * shorter else _SENSOR_WIDTH)
