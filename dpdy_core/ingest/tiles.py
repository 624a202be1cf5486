"""Small pictures side by side, and as files. Torch-free."""

from pathlib import Path

import cv2
import numpy as np

from dpdy_core.ingest.glance import Glance
from dpdy_core.ingest.movers import moving_pixels
from dpdy_core.ingest.size import fitted_size

ACROSS = 4  # pictures side by side
SIDE = 320  # longer side of each, pixels
_ALONE = '<svg xmlns="http://www.w3.org/2000/svg"'  # what an SVG needs in a file of its own
TINT = np.array([255, 60, 40], np.float32)  # of what moves


def first_look(seen: Glance) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB: some frames of a glance, tinted where they move at a glance."""
    greys, tiles = seen.greys, []
    for first, second in seen.moments:
        at_a_glance = moving_pixels(greys[first], greys[second])
        frame = tile(seen.frames[first])
        tiles.append(frame if at_a_glance is None else tinted(frame, at_a_glance[0]))
    return sheet(tiles)


def write_pictures(folder: Path, pictures: dict[str, np.ndarray | str | None]) -> list[Path]:
    """Store RGB pictures as NAME.jpg and SVG texts as NAME.svg in `folder`; those that are None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, picture in pictures.items():
        if isinstance(picture, str):
            written.append(folder / f"{name}.svg")
            written[-1].write_text(picture.replace("<svg", _ALONE, 1), encoding="utf-8")
        elif picture is not None:
            written.append(folder / f"{name}.jpg")
            written[-1].write_bytes(jpeg(picture))
    return written


def jpeg(rgb: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG file."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return bytes(data.tobytes())


def tile(frame: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB at most SIDE long."""
    return cv2.resize(frame, fitted_size(frame.shape[1], frame.shape[0], SIDE), interpolation=cv2.INTER_AREA)


def tinted(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 `frame` with TINT over `mask` (h, w) bool."""
    full = cv2.resize(mask.astype(np.uint8), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    tinted: np.ndarray = np.where(full[..., None], 0.45 * frame + 0.55 * TINT, frame).astype(np.uint8)
    return tinted


def sheet(tiles: list[np.ndarray]) -> np.ndarray | None:
    """Equal tiles in rows of ACROSS; None without any."""
    if not tiles:
        return None
    empty = np.zeros_like(tiles[0])
    padded = tiles + [empty] * (-len(tiles) % min(ACROSS, len(tiles)))
    rows = [np.hstack(padded[i : i + ACROSS]) for i in range(0, len(padded), ACROSS)]
    return np.vstack(rows)
