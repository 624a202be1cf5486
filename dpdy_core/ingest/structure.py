"""Where the frames of a capture without poses were taken from: the ways to find out, in the order they are tried."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dpdy_core.config import RunConfig
from dpdy_core.errors import CamerasFailed, JobFailed
from dpdy_core.ingest.focal import SURE, prior_of
from dpdy_core.ingest.footage import Footage
from dpdy_core.ingest.sparse_model import FOCAL, FOCAL_GUESSES, Attempt, Evidence, Intrinsics, SparseModel, attempts
from dpdy_core.ingest.stillness import STILL, background_shift
from dpdy_core.ingest.turning import Pair, place_turning, solve_turning
from dpdy_core.progress import Reporter

CameraMotion = Literal["moving", "turning", "static"]

ENOUGH = 0.95  # share of the training frames below which structure from motion is tried again
NEIGHBOURS = 24  # training frames that a held-out frame is compared with
STEPS = 1000  # of the stage's progress
TAKEN = 0.8  # share of the progress that is left which a try takes: mostly one is enough
MOSTLY_MOVING = 0.5  # share of moving pixels above which masks leave too little
NO_PARALLAX = (
    "there is no parallax: neither depth nor the size of the scene can be measured, and novel views hold only close to "
    "the filmed one, unless the capture or a model (depth.model) gives depth"
)


@dataclass(frozen=True)
class Solution:
    """Cameras of the frames that could be placed."""

    w2c: dict[str, np.ndarray]  # (3, 4) by the frames' names in the footage
    intrinsics: Intrinsics  # of the matched images
    motion: CameraMotion
    note: str  # what was done instead of structure from motion, in words
    model: SparseModel | None = None


@dataclass(frozen=True)
class _Outcome:
    """What an attempt at structure from motion gave."""

    attempt: Attempt
    model: SparseModel | None
    evidence: Evidence
    share: float  # of the training frames that are placed


def find_cameras(footage: Footage, workspace: Path, config: RunConfig, reporter: Reporter) -> Solution:
    """A static camera, structure from motion, or a camera that only turns. Raises CamerasFailed."""
    static = _static(footage, reporter)
    if static is not None:
        return static
    # pycolmap is a heavy optional dependency that some GPU hosts lack: captures with poses must run without it.
    try:
        from dpdy_core.ingest import features, localise, sfm
    except ImportError as error:
        raise JobFailed(
            f"the capture has no camera poses and pycolmap, which finds them, cannot be loaded: {error}",
            "pip install pycolmap, or give a capture with camera poses",
        ) from error

    moving = footage.write_images(workspace, reporter.check)
    least = config.cameras.min_registered
    tries = attempts(len(footage.train), footage.focal_hint, moving < MOSTLY_MOVING)
    best: _Outcome | None = None
    reporter.step(0, STEPS)  # the rate of the stage counts from here
    for number, attempt in enumerate(tries):
        if attempt.affine and best is not None and best.share >= least:
            break  # slow: only to prevent a failure

        def progress(done: float, before: int = number) -> None:
            reporter.step(int(STEPS * progress_of_tries(before, done)), STEPS)

        model, evidence = sfm.reconstruct(
            workspace, footage.train, footage.known, attempt, prior_of(footage.focal_hint), config.seed, progress
        )
        share = 0.0 if model is None else len(model.w2c) / len(footage.train)
        if best is None or share > best.share:
            best = _Outcome(attempt, model, evidence, share)
        if number > 0 or share < ENOUGH:
            reporter.warn(f"structure from motion with {attempt.name} placed {share:.0%} of the training frames")
        if best.share >= ENOUGH:
            break
        if number == 0 and share < least:  # before angles so small that noise looks like depth
            database = workspace / attempt.matches
            turning = _turning(footage, features.shared_points(database, footage.train, footage.centre), reporter)
            if turning is not None:
                return _with_held_out(turning, footage, database, attempt, config.seed, reporter)
    assert best is not None  # there is a first attempt
    if best.model is None or best.share < least:
        raise _failure(best.share, best.evidence, moving, least)
    if best.share < ENOUGH:
        reporter.warn(f"{best.share:.0%} of the training frames could be placed: {_cause(best.evidence, moving)[0]}")
    _tell_focal(best.model, reporter)
    queries = footage.queries([name for name in footage.train if name in best.model.w2c], NEIGHBOURS)
    found = localise.localise(best.model, queries, best.attempt, config.seed, reporter.check)
    return Solution(best.model.w2c | found, best.model.intrinsics, "moving", "", best.model)


def _tell_focal(model: SparseModel, reporter: Reporter) -> None:
    """Warn of a focal length that the pictures hardly tell."""
    if model.focal_deviation is None or model.focal_deviation <= SURE:
        return
    how = "weighed with what phone cameras or the file's tags let expect, " if model.focal_expected else ""
    reporter.warn(
        f"the camera hardly moves ({model.parallax():.1f} degrees as seen from the scene): the focal length, {how}is "
        f"known to {model.focal_deviation:.0%} only (one standard deviation), and with it all depth; give the "
        "intrinsics or move the camera farther"
    )


def progress_of_tries(before: int, done: float) -> float:
    """Progress in [0, 1) of the search when `before` tries have ended and the next is `done` in [0, 1]. Never back."""
    return 1 - (1 - TAKEN) ** before * (1 - TAKEN * min(done, 1.0))


def _static(footage: Footage, reporter: Reporter) -> Solution | None:
    """One pose for all frames if the background stands still."""
    shift = background_shift(*footage.small(reporter.check), reporter.check)
    if shift is None or shift > STILL:
        return None
    intrinsics, origin = _assumed(footage)
    note = (
        f"the camera stands still (the background moves by {shift:.3%} of the picture): all frames get one pose, with "
        f"{origin}; {NO_PARALLAX}"
    )
    reporter.fall_back(note)
    pose = np.eye(3, 4)
    return Solution(dict.fromkeys([*footage.train, *footage.held_out], pose), intrinsics, "static", note)


def _assumed(footage: Footage) -> tuple[Intrinsics, str]:
    """The intrinsics to take where the pictures cannot tell them, and where they come from."""
    if footage.known is not None:
        return footage.known, "the given focal length"
    share = footage.focal_hint or FOCAL
    focal = share * max(footage.size)
    angle = 2 * np.degrees(np.arctan(footage.size[0] / 2 / focal))
    origin = "the focal length that the file's tags tell" if footage.focal_hint else "an assumed focal length"
    return Intrinsics(focal, focal, *footage.centre), f"{origin} ({angle:.0f} degrees across)"


def _turning(footage: Footage, pairs: list[Pair], reporter: Reporter) -> Solution | None:
    """Rotations alone, if they explain the matches of most frames."""
    longer, known = max(footage.size), footage.known
    guesses = FOCAL_GUESSES if footage.focal_hint is None else (footage.focal_hint, FOCAL)
    focals = (known.fx,) if known is not None else tuple(share * longer for share in guesses)
    found = solve_turning(pairs, focals, known is not None, reporter.check)
    if found is None or not found.fits or len(found.rotations) < ENOUGH * len(footage.train):
        return None
    note = (
        f"the camera only turns (by {found.angle:.1f} degrees; rotations explain the picture to {found.residual:.2f} "
        f"pixels): {len(found.rotations)} of {len(footage.train)} training frames get a rotation and one place; "
        f"{NO_PARALLAX}"
    )
    reporter.fall_back(note)
    poses = {footage.train[i]: np.column_stack([r, np.zeros(3)]) for i, r in found.rotations.items()}
    intrinsics = known or Intrinsics(found.focal, found.focal, *footage.centre)
    return Solution(poses, intrinsics, "turning", note)


def _with_held_out(
    turning: Solution, footage: Footage, database: Path, attempt: Attempt, seed: int, reporter: Reporter
) -> Solution:
    """`turning` with the held-out frames, each against the training frames as they are."""
    from dpdy_core.ingest import features  # see find_cameras

    queries = footage.queries(list(turning.w2c), NEIGHBOURS)
    if not queries:
        return turning
    features.match_queries(database, queries, turning.intrinsics, attempt, seed, reporter.check)
    names = [*footage.train, *footage.held_out]
    pairs = features.shared_points(database, names, footage.centre)
    rotations = {names.index(name): pose[:, :3] for name, pose in turning.w2c.items()}
    poses = dict(turning.w2c)
    for query in queries:
        found = place_turning(pairs, rotations, turning.intrinsics.fx, names.index(query))
        if found is not None:
            poses[query] = np.column_stack([found, np.zeros(3)])
    return Solution(poses, turning.intrinsics, turning.motion, turning.note)


def _cause(evidence: Evidence, moving: float) -> tuple[str, str]:
    """The likeliest reason why frames cannot be placed, and a remedy."""
    if evidence.features < 200:
        return (
            f"few features (median {evidence.features:.0f} an image): low texture, blur or darkness",
            "use a sharper, brighter or more textured video, or give camera poses",
        )
    if evidence.verified < max(1, evidence.pairs // 10):
        return (
            f"few frame pairs match ({evidence.verified} of {evidence.pairs}): the view changes too fast",
            "use more frames (ingest.max_frames) or a slower camera, or give camera poses",
        )
    if moving > MOSTLY_MOVING:
        return (
            f"most of the picture moves ({moving:.0%})",
            "film with more of the still surroundings in view, or give motion masks or camera poses",
        )
    return (
        f"too little parallax ({evidence.rigid_share:.0%} of the frame pairs show none): the camera hardly moves",
        "move the camera sideways while filming, or give camera poses",
    )


def _failure(share: float, evidence: Evidence, moving: float, least: float) -> CamerasFailed:
    cause, remedy = _cause(evidence, moving)
    return CamerasFailed(
        f"{share:.0%} of the training frames could be placed, {least:.0%} are needed; {cause}",
        remedy,
    )
