"""Structure from motion with COLMAP. The only file that imports pycolmap.

COLMAP's cameras are OpenCV's (x right, y down, looking along +z); its pixels are those of `Cameras`: the centre of the
first is (0.5, 0.5).
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pycolmap

from dpdy_core.ingest.sparse_model import Attempt, Evidence, Intrinsics, SparseModel

T = TypeVar("T")

POLL_SECONDS = 0.2
MAX_ERROR = 2.0  # pixels between a point and its observation
MIN_POINTS = 50  # a model of fewer points is an accident
LOCALISE_INLIERS = 12


def reconstruct(
    workspace: Path,
    names: list[str],
    known: Intrinsics | None,
    attempt: Attempt,
    seed: int,
    check: Callable[[], None],
) -> tuple[SparseModel | None, Evidence]:
    """Incremental structure from motion on `workspace`/images/NAME, masks `workspace`/masks/NAME.png (0 = ignore).

    Intrinsics that are known stay fixed; else one focal length is found. Features and matches stay in the workspace for
    `localise`. `check` is called often and may raise to stop.
    """
    pycolmap.logging.minloglevel = 2  # its progress is of no use in our log
    database = workspace / f"{attempt.features}.db"
    database.unlink(missing_ok=True)
    _extract(database, names, known, attempt, seed, check)
    _match(database, attempt, seed, check)
    models = [
        model
        for factor in (attempt.focal_factors if known is None else (None,))
        for model in _map(database, attempt, factor, seed, check)
        if model.num_points3D() >= MIN_POINTS
    ]
    best = max(models, key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)
    return (None if best is None else _read(best, database)), _evidence(database)


def _map(database: Path, attempt: Attempt, factor: float | None, seed: int, check: Callable[[], None]) -> list[Any]:
    """The pycolmap.Reconstructions of one incremental mapping; `factor` None keeps the known intrinsics."""
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
                database, database.parent / "images", output, options=options, cancellation_token=token
            ).values()
        )

    return _interruptible(build, check)


def _extract(
    database: Path,
    names: list[str],
    known: Intrinsics | None,
    attempt: Attempt,
    seed: int,
    check: Callable[[], None],
) -> None:
    reader = pycolmap.ImageReaderOptions()
    if attempt.masked:
        reader.mask_path = database.parent / "masks"
    reader.camera_model = "SIMPLE_PINHOLE" if known is None else "PINHOLE"
    if known is not None:
        reader.camera_params = f"{known.fx},{known.fy},{known.cx},{known.cy}"
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_features = attempt.features
    options.sift.peak_threshold = attempt.peak_threshold

    # Registered one by one first: threads would number the images in the order in which they happen to end.
    pycolmap.Database.open(database).close()
    pycolmap.import_images(
        database,
        database.parent / "images",
        camera_mode=pycolmap.CameraMode.SINGLE,
        image_names=names,
        options=reader,
    )

    def extract(token: Any) -> None:
        pycolmap.set_random_seed(seed)
        pycolmap.extract_features(
            database,
            database.parent / "images",
            image_names=names,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
            cancellation_token=token,
        )

    _interruptible(extract, check)


def _match(database: Path, attempt: Attempt, seed: int, check: Callable[[], None]) -> None:
    verification = _verification(seed)

    def match(token: Any) -> None:
        pycolmap.set_random_seed(seed)
        common = {"verification_options": verification, "device": pycolmap.Device.cpu, "cancellation_token": token}
        if attempt.overlap is None:
            pycolmap.match_exhaustive(database, **common)
        else:
            pairing = pycolmap.SequentialPairingOptions()
            pairing.overlap = attempt.overlap
            pycolmap.match_sequential(database, pairing_options=pairing, **common)

    _interruptible(match, check)


def _verification(seed: int) -> Any:
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.detect_watermark = False
    return options


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
    # Held-out frames have no motion masks; what moves finds no partner among the masked training frames.
    _extract(database, list(queries), model.intrinsics, replace(attempt, masked=False), seed, check)
    pairs = database.parent / "pairs.txt"
    pairs.write_text("\n".join(f"{query} {name}" for query, names in queries.items() for name in names))
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = pairs

    def match(token: Any) -> None:
        pycolmap.set_random_seed(seed)
        pycolmap.match_image_pairs(
            database,
            pairing_options=pairing,
            verification_options=_verification(seed),
            device=pycolmap.Device.cpu,
            cancellation_token=token,
        )

    _interruptible(match, check)
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
    if len(found) < LOCALISE_INLIERS:
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
    if answer is None or answer["num_inliers"] < LOCALISE_INLIERS:
        return None
    return np.asarray(answer["cam_from_world"].matrix())


def _interruptible(work: Callable[[Any], T], check: Callable[[], None]) -> T:
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
