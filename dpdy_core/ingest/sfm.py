"""Structure from motion with COLMAP."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from dpdy_core.ingest.features import extract_features, image_pairs, interruptible, match_features
from dpdy_core.ingest.focal import FocalPrior, weighed
from dpdy_core.ingest.sparse_model import Attempt, Evidence, Intrinsics, SparseModel

EXTRACTED, MATCHED = 0.3, 0.6  # share of an attempt's time
MAX_ERROR = 2.0  # pixels between a point and its observation
NOISE = 0.25  # pixels by which a good observation is off
MIN_POINTS = 50  # a model of fewer points is an accident
NO_CHANGE = 1e-3  # of the focal length: less is not worth an adjustment


def reconstruct(
    workspace: Path,
    names: list[str],
    known: Intrinsics | None,
    attempt: Attempt,
    prior: FocalPrior,
    seed: int,
    check: Callable[[float], None],
) -> tuple[SparseModel | None, Evidence]:
    """Incremental structure from motion on `workspace`/images/NAME, masks `workspace`/masks/NAME.png (0 = ignore).

    Intrinsics that are known stay fixed; else one focal length is found, of which `prior` is expected. Features and
    matches stay in the workspace for later attempts and for `localise`. `check(share done)` is called often and may
    raise to stop.
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
    if best is None:
        return None, _evidence(database)
    deviation, expected = _refine(best, attempt, prior if known is None else None, lambda: check(1.0))
    return replace(_read(best, database), focal_deviation=deviation, focal_expected=expected), _evidence(database)


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


def _refine(
    model: Any, attempt: Attempt, prior: FocalPrior | None, check: Callable[[], None]
) -> tuple[float | None, bool]:
    """Bundle adjustment with a robust loss; the focal length too, unless `prior` (what is expected of it) is None.

    What moves a little and was not masked, and weak matches, pull the squared loss of the mapping: on a compressed clip
    with swaying plants the focal length ended 4.6 % off before and 0.8 % after. Where little parallax leaves the focal
    length open, it is weighed with the prior and the rest adjusted once more. The answer is its relative standard
    deviation, None where it is not known, and whether the prior changed it.
    """
    measured = _adjust(model, prior is not None, check)
    changed = False
    deviation = measured
    if prior is not None and measured is not None:
        camera = next(iter(model.cameras.values()))
        longer = max(camera.width, camera.height)
        focal, deviation = weighed(camera.params[0] / longer, measured, prior)
        changed = abs(focal * longer / camera.params[0] - 1) > NO_CHANGE
        if changed:
            camera.params = [focal * longer, *camera.params[1:]]
            _adjust(model, False, check)
    pycolmap.ObservationManager(model).filter_all_points3D(MAX_ERROR, attempt.point_angle)
    return deviation, changed


def _adjust(model: Any, focal: bool, check: Callable[[], None]) -> float | None:
    """One bundle adjustment; the relative standard deviation of the `focal` length if it is refined and can be told."""
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
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, model)
    interruptible(lambda _: adjuster.solve(), check)
    if not focal:
        return None
    found = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model, adjuster)
    camera = next(iter(model.cameras.values()))
    variance = None if found is None else found.get_other_params_cov(camera.params)
    if variance is None:
        return None
    # The covariance is that of errors of one pixel.
    return float(np.sqrt(variance[0, 0]) * _noise(model) / camera.params[0])


def _noise(model: Any) -> float:
    """Standard deviation of an observation in pixels, by the median error and what the adjustment took from it.

    NOISE at least: what is wrong with a point alike in all its images, points swallow. On rendered clips with known
    cameras the focal length is off by 1.5 to 7 times what the errors that remain let expect, and by about as much as
    with this.
    """
    errors = []
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        for seen in image.points2D:
            place = image.project_point(model.points3D[seen.point3D_id].xyz) if seen.has_point3D() else None
            if place is not None:
                errors.append(place - seen.xy)
    count = 2 * len(errors)
    free = count - 3 * len(model.points3D) - 6 * model.num_reg_images()
    return max(NOISE, float(1.4826 * np.median(np.abs(errors)) * np.sqrt(count / max(free, 1))))


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
