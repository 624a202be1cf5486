"""One held-out view as every row shows it, side by side."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from dpdy_core.rundir import write_atomic

COLUMNS, LEAST_WIDTH, LABEL = 5, 192, 22  # pictures a line; pixels


def write_strip(path: Path, rows: list[tuple[str, Path]]) -> None:
    """PNG of the truth and of each row's render of the middle held-out view, labelled.

    `rows`: label and folder of evaluation pictures (truth, render, error, depth side by side). Without any, nothing.
    """
    tiles: list[np.ndarray] = []
    for label, folder in rows:
        files = sorted(folder.glob("*.jpg"))
        row = cv2.imread(str(files[len(files) // 2])) if files else None
        if row is None:
            continue
        width = row.shape[1] // 4
        if not tiles:
            tiles.append(_tile(row[:, :width], "truth"))
        tiles.append(_tile(row[:, width : 2 * width], label))
    if not tiles:
        return
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % min(COLUMNS, len(tiles)))
    columns = min(COLUMNS, len(tiles))
    lines = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    write_atomic(path, partial(_write, picture=np.concatenate(lines)))


def _tile(picture: np.ndarray, label: str) -> np.ndarray:
    scale = max(1, -(-LEAST_WIDTH // picture.shape[1]))
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    band = np.full((LABEL, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(band, label, (4, LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    framed = np.concatenate([band, picture])
    return np.pad(framed, ((0, 4), (2, 2), (0, 0)), constant_values=255)


def _write(path: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"cannot write {path}")
