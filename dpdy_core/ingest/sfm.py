"""Structure from motion with COLMAP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from dpdy_core.ingest.features import extract_features, image_pairs, interruptible, match_features
from dpdy_core.ingest.sparse_model import Attempt, Evidence, Intrinsics, SparseModel

EXTRACTED, MATCHED = 0.3, 0.6  # share of an attempt's time
MAX_ERROR = 2.0  # pixels between a point and its observation
NOISE = 0.25  # pixels by which a good observation is off
MIN_POINTS = 50  # a model of fewer points is an accident


def reconstruct(
    workspace: Path,
    names: list[str],
    known: Intrinsics | None,
    attempt: Attempt,
    seed: int,
    check: Callable[[float], None],
) -> tuple[SparseModel | None, Evidence]:
    """Incremental structure from motion on `workspace`/images/NAME, masks `workspace`/masks/NAME.png (0 = ignore).

    Intrinsics that are known stay fixed; else one focal length is found. Features and matches stay in the workspace for
    later attempts and for `localise`. `check(share done)` is called often and may raise to stop.
    """
    pycolmap.logging.minloglevel = 2  # its progress is of no use in our log
    database = workspace / attempt.matches

    def part(begin: float, end: float) -> Callable[[float], None]:
        return lambda done: check(begin + (end - begin) * min(done, 1.0))

    if not database.exists():
        unfinished = database.with_suffix(".partial")
        unfinished.unlink(missing_ok=True)
        extract_features(unfinished, names, known, attempt, seed, part(0, EXTRACTED))
        match_features(unfinished, image_pairs(names, attempt.overlap), seed, part(EXTRACTED, MATCHED))
        unfinished.rename(database)
    models = []
    factors = attempt.focal_factors if known is None else (None,)
    each = (1 - MATCHED) / len(factors)
    for i, factor in enumerate(factors):
        models += _map(database, attempt, factor, seed, len(names), part(MATCHED + i * each, MATCHED + (i + 1) * each))
    good = [model for model in models if model.num_points3D() >= MIN_POINTS]
    best = max(good, key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
    if best is not None:
        _refine(best, attempt, known is None, lambda: check(1.0))
    return (None if best is None else _read(best, database)), _evidence(database)


def _map(
    database: Path,
    attempt: Attempt,
    factor: float | None,
    seed: int,
    images: int,
    check: Callable[[float], None],
) -> list[Any]:
    """The pycolmap.Reconstructions of one incremental mapping; `factor` None keeps the known intrinsics."""
    placed: list[None] = []
    if factor is not None:
        opened = pycolmap.Database.open(database)
        try:
            camera = opened.read_all_cameras()[0]
            camera.params = [factor * max(camera.width, camera.height), camera.width / 2, camera.height / 2]
            opened.update_camera(camera)
        finally:
            opened.close()
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = seed
    options.max_num_models, options.min_model_size = 3, 3
    options.num_threads = options.mapper.num_threads = 1  # sums in one order: equal seeds give equal poses
    options.extract_colors = False
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = factor is not None
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = False
    options.mapper.init_min_tri_angle = attempt.first_angle
    options.mapper.filter_min_tri_angle = options.triangulation.min_angle = attempt.point_angle
    options.mapper.ba_local_min_tri_angle = 4 * attempt.point_angle
    options.mapper.init_min_num_inliers = max(attempt.min_inliers * 2, 30)
    options.mapper.abs_pose_min_num_inliers = attempt.min_inliers
    options.mapper.abs_pose_max_error = 3 * MAX_ERROR
    options.mapper.filter_max_reproj_error = MAX_ERROR
    options.triangulation.merge_max_reproj_error = options.triangulation.complete_max_reproj_error = MAX_ERROR
    output = database.parent / "models"
    output.mkdir(exist_ok=True)

    def build(token: Any) -> list[Any]:
        pycolmap.set_random_seed(seed)
        return list(
            pycolmap.incremental_mapping(
                database,
                database.parent / "images",
                output,
                options=options,
                next_image_callback=lambda: placed.append(None),
                cancellation_token=token,
            ).values()
        )

    return interruptible(build, lambda: check(len(placed) / images))


def _refine(model: Any, attempt: Attempt, focal: bool, check: Callable[[], None]) -> None:
    """Adjust the whole model once more with a robust loss.

    What moves a little and was not masked, and weak matches, pull the squared loss of the mapping: on a compressed clip
    with swaying plants the focal length ended 4.6 % off before and 0.8 % after.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length, options.refine_extra_params = focal, False
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = NOISE
    options.ceres.solver_options.num_threads = 1  # see _map
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    interruptible(lambda _: pycolmap.create_default_bundle_adjuster(options, config, model).solve(), check)
    pycolmap.ObservationManager(model).filter_all_points3D(MAX_ERROR, attempt.point_angle)


def _read(model: Any, database: Path) -> SparseModel:
    index = {point_id: i for i, point_id in enumerate(sorted(model.points3D))}
    xyz = np.array([model.points3D[point_id].xyz for point_id in index]).reshape(-1, 3)
    poses, observations = {}, {}
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        seen = [p for p in image.points2D if p.has_point3D()]
        poses[image.name] = np.asarray(image.cam_from_world().matrix())
        observations[image.name] = (
            np.array([index[p.point3D_id] for p in seen], dtype=np.int64),
            np.array([p.xy for p in seen]).reshape(-1, 2),
        )
    k = next(iter(model.cameras.values())).calibration_matrix()
    intrinsics = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    return SparseModel(poses, intrinsics, xyz, observations, model.compute_mean_reprojection_error(), model, database)


def _evidence(database: Path) -> Evidence:
    opened = pycolmap.Database.open(database)
    try:
        counts = [opened.num_keypoints_for_image(image.image_id) for image in opened.read_all_images()]
        _, geometries = opened.read_two_view_geometries()
        tried = opened.num_matched_image_pairs()
    finally:
        opened.close()
    kinds = pycolmap.TwoViewGeometryConfiguration
    useless = (kinds.UNDEFINED, kinds.DEGENERATE, kinds.WATERMARK)
    verified = [g for g in geometries if g.config not in useless]
    flat = [g for g in verified if g.config in (kinds.PLANAR, kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC)]
    return Evidence(
        float(np.median(counts)) if counts else 0.0, len(verified), tried, len(flat) / max(len(verified), 1)
    )
