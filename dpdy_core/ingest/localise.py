"""Frames placed against a finished reconstruction."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pycolmap

from dpdy_core.ingest.features import match_queries
from dpdy_core.ingest.sparse_model import Attempt, SparseModel

INLIERS = 12


def localise(
    model: SparseModel,
    queries: dict[str, list[str]],
    attempt: Attempt,
    seed: int,
    check: Callable[[], None],
) -> dict[str, np.ndarray]:
    """World-to-camera (3, 4) of each query image that can be placed against `model`, which stays as it is.

    `queries` maps an image to the registered images that it is compared with. The intrinsics are the model's.
    """
    if not queries:
        return {}
    database = model.database
    match_queries(database, queries, model.intrinsics, attempt, seed, check)
    opened = pycolmap.Database.open(database)
    try:
        placed = {query: _place(opened, model, query, names, seed, check) for query, names in queries.items()}
    finally:
        opened.close()
    return {query: pose for query, pose in placed.items() if pose is not None}


def _place(
    database: Any, model: SparseModel, query: str, names: list[str], seed: int, check: Callable[[], None]
) -> np.ndarray | None:
    check()
    query_id = database.read_image_with_name(query).image_id
    keypoints = database.read_keypoints(query_id)[:, :2].astype(np.float64)
    found: dict[tuple[int, int], None] = {}  # ordered and without repeats: several images saw the same point
    for name in names:
        image = model.colmap.find_image_with_name(name)
        for mine, theirs in database.read_two_view_geometry(query_id, image.image_id).inlier_matches:
            point = image.points2D[theirs]
            if point.has_point3D():
                found[int(mine), point.point3D_id] = None
    if len(found) < INLIERS:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = 4.0
    options.ransac.random_seed = seed
    answer = pycolmap.estimate_and_refine_absolute_pose(
        np.array([keypoints[mine] for mine, _ in found]),
        np.array([model.colmap.points3D[point].xyz for _, point in found]),
        next(iter(model.colmap.cameras.values())),
        options,
    )
    if answer is None or answer["num_inliers"] < INLIERS:
        return None
    return np.asarray(answer["cam_from_world"].matrix())
