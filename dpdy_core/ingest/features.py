"""COLMAP's features and matches. With `sfm.py` and `localise.py` all that imports pycolmap.

COLMAP's cameras are OpenCV's (x right, y down, looking along +z); its pixels are those of `Cameras`: the centre of the
first is (0.5, 0.5).
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pycolmap

from dpdy_core.ingest.sparse_model import Attempt, Intrinsics
from dpdy_core.ingest.turning import Pair

T = TypeVar("T")
U = TypeVar("U")

POLL_SECONDS = 0.2
PARTS = 12


def extract_features(
    database: Path,
    names: list[str],
    known: Intrinsics | None,
    attempt: Attempt,
    seed: int,
    check: Callable[[float], None],
) -> None:
    """Put the images `names` and their features into the database, one camera for all; `check(share)` may raise."""
    reader = pycolmap.ImageReaderOptions()
    if attempt.masked:
        reader.mask_path = database.parent / "masks"
    reader.camera_model = "SIMPLE_PINHOLE" if known is None else "PINHOLE"
    if known is not None:
        reader.camera_params = f"{known.fx},{known.fy},{known.cx},{known.cy}"
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = attempt.features
    options.sift.peak_threshold = attempt.peak_threshold
    options.sift.estimate_affine_shape = options.sift.domain_size_pooling = attempt.affine

    # Registered one by one first: threads would number the images in the order in which they happen to end.
    pycolmap.Database.open(database).close()
    pycolmap.import_images(
        database,
        database.parent / "images",
        camera_mode=pycolmap.CameraMode.SINGLE,
        image_names=names,
        options=reader,
    )

    for done, part in _parts(names):

        def extract(token: Any, part: list[str] = part) -> None:
            pycolmap.set_random_seed(seed)
            pycolmap.extract_features(
                database,
                database.parent / "images",
                image_names=part,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            )

        check(done)
        interruptible(extract, lambda done=done: check(done))  # type: ignore[misc]


def image_pairs(names: list[str], overlap: int | None) -> list[tuple[str, str]]:
    """Which of the images, in time order, are compared: all, or each with its `overlap` next ones and, as COLMAP does
    ("quadratic overlap"), with those a power of two away.
    """
    count = len(names)
    near = count if overlap is None else overlap
    offsets = sorted({*range(1, min(near, count - 1) + 1), *(1 << k for k in range(count.bit_length()))})
    return [(names[i], names[i + offset]) for i in range(count) for offset in offsets if i + offset < count]


def match_features(database: Path, pairs: list[tuple[str, str]], seed: int, check: Callable[[float], None]) -> None:
    """Match the pairs of images and verify them geometrically; `check(share done)` may raise."""
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = database.parent / "pairs.txt"
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = 1  # its nearest neighbours come from a threaded BLAS: about 1 run in 50 differed with several
    for done, part in _parts(pairs):
        Path(pairing.match_list_path).write_text("\n".join(f"{one} {two}" for one, two in part))

        def match(token: Any) -> None:
            pycolmap.set_random_seed(seed)
            pycolmap.match_image_pairs(
                database,
                pairing_options=pairing,
                matching_options=options,
                verification_options=verification(seed),
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            )

        check(done)
        interruptible(match, lambda done=done: check(done))  # type: ignore[misc]


def _parts(items: list[U]) -> Iterator[tuple[float, list[U]]]:
    """`items` in PARTS parts, each with the share that lies before it: COLMAP itself does not tell its progress."""
    size = max(1, -(-len(items) // PARTS))
    for begin in range(0, len(items), size):
        yield begin / len(items), items[begin : begin + size]


def match_queries(
    database: Path,
    queries: dict[str, list[str]],
    known: Intrinsics,
    attempt: Attempt,
    seed: int,
    check: Callable[[], None],
) -> None:
    """Add the images that are the keys of `queries` and match each with the images that it maps to."""
    # Held-out frames have no motion masks; what moves finds no partner among the masked training frames.
    extract_features(database, list(queries), known, replace(attempt, masked=False), seed, lambda _: check())
    pairs = [(query, name) for query, names in queries.items() for name in names]
    match_features(database, pairs, seed, lambda _: check())


def verification(seed: int) -> Any:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.detect_watermark = False
    return options


def shared_points(database: Path, names: list[str], principal: tuple[float, float]) -> list[Pair]:
    """The verified matches of the images `names`, numbered by their place in it; pixels from `principal`."""
    opened = pycolmap.Database.open(database)
    try:
        number = {image.image_id: names.index(image.name) for image in opened.read_all_images() if image.name in names}
        xy = {i: opened.read_keypoints(i)[:, :2].astype(np.float64) - principal for i in number}
        pairs = []
        for pair_id, geometry in zip(*opened.read_two_view_geometries(), strict=True):
            one, two = pycolmap.pair_id_to_image_pair(pair_id)
            if one in number and two in number and len(geometry.inlier_matches):
                first, second = geometry.inlier_matches.T
                pairs.append(Pair(number[one], number[two], xy[one][first], xy[two][second]))
        return pairs
    finally:
        opened.close()


def interruptible(work: Callable[[Any], T], check: Callable[[], None]) -> T:
    """Run `work(token)` in a thread, so that signals are heard meanwhile, and cancel it when `check` raises."""
    token = pycolmap.CancellationToken()
    finished = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work, token)
        future.add_done_callback(lambda _: finished.set())
        try:
            while not finished.wait(POLL_SECONDS):
                check()
        except BaseException:
            token.cancel()
            raise
        return future.result()
