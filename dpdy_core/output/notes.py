"""Why a number of an evaluation is missing or means something special."""

from dpdy_core.ingest.clip import Clip, Split, read_transforms
from dpdy_core.optimise.camera_corrections import load_corrections
from dpdy_core.output.covisibility import FLOW
from dpdy_core.output.keypoints import Keypoints
from dpdy_core.output.metrics import LEAST_MS_SSIM_SIDE, flip_missing, lpips_missing
from dpdy_core.output.protocols import DYCHECK, NVIDIA, Protocol
from dpdy_core.output.scores import HeldOut, Scores
from dpdy_core.rundir import RunDir


def notes_on(
    run: RunDir,
    protocol: Protocol,
    split: Split,
    held_out: HeldOut | None,
    train: Clip,
    views: list[Scores],
    keypoints: Keypoints | None,
) -> list[str]:
    """The notes for `metrics.json`."""
    notes = [*_forms(protocol), *_networks(), *_points(protocol, keypoints)]
    listed = len(read_transforms(run.capture)[f"{split}_filenames"])
    if held_out is None:
        reason = f"none of the {listed} test frames has a camera pose" if listed else "the capture has no test views"
        return [f"{reason}: nothing could be scored", *notes]
    clip = held_out.clip
    if len(clip) < listed:
        notes.append(f"{listed - len(clip)} of {listed} {split} frames have no camera pose and are not scored")
    if min(clip.cameras.width, clip.cameras.height) < LEAST_MS_SSIM_SIDE:
        notes.append(f"ms_ssim is null: its five scales need images of {LEAST_MS_SSIM_SIDE} pixels a side")
    else:
        notes.append("ms_ssim of a region is that of the image with the truth put in everywhere else")
    if not bool(clip.valid.all()):
        notes.append("pixels that the capture's masks exclude are not scored")
    for region, key in (("covisible", "covisible_path"), ("moving", "motion_mask_path")):
        other = {"covisible": "unseen", "moving": "static"}[region]
        if not held_out.has(region):
            notes.append(f"{region} and {other} are null: the {split} frames have no {key}")
        elif any(view[which]["psnr"] is None for view in views for which in (region, other)):
            notes.append(f"{region} or {other} is null on views without such pixels; the mean is over the others")
    if held_out.has("unseen"):
        notes.append("unseen is what covisible leaves out: surfaces that no or too few training frames saw")
    if held_out.depth is None:
        notes.append(f"abs_rel, rmse and delta1 are null: the {split} frames have no metric depth")
    else:
        notes.append("abs_rel, rmse and delta1 are errors of depth after one factor a view, that of the medians")
    if all(before is None for before in held_out.before):
        notes.append(f"flicker is null: no two {split} frames share a camera")
    else:
        notes.append("flicker, in levels of 255, is the change since the same camera's last view; truth has its own")
    notes.append("sharpness is the gradient energy over that of the truth")
    if train.depth is None:
        notes.append("the baseline all_times_warp is missing: the training frames have no depth")
    if any(view["psnr"] is None for view in views):
        notes.append("psnr is null where render and truth are equal or no pixel counts")
    return notes + _refinement(run, train)


def _forms(protocol: Protocol) -> list[str]:
    """Which forms of the metrics the protocol takes."""
    if protocol is DYCHECK:
        return [
            "renders are cut to 8 bit; psnr, ssim and lpips are DyCheck's mPSNR, mSSIM and mLPIPS; the benchmark's are "
            "those under covisible",
            "mSSIM is the mean of the whole map, in which windows without a masked pixel count as one",
        ]
    if protocol is NVIDIA:
        return ["renders are cut to 8 bit; ssim has scikit-image's default window of 7x7 pixels"]
    return []


def _networks() -> list[str]:
    missing = {"lpips": lpips_missing(), "flip": flip_missing()}
    return [f"{name} is null: {reason}" for name, reason in missing.items() if reason]


def _points(protocol: Protocol, keypoints: Keypoints | None) -> list[str]:
    """How PCK-T was found, or why not."""
    if protocol is not DYCHECK:
        return ["pck_t is null: it belongs to protocol dycheck"]
    if keypoints is None:
        return ["pck_t is null: the capture has no keypoints"]
    kept = f"{len(keypoints.frames)} of {keypoints.annotated} annotated frames are among the run's training frames"
    if len(keypoints.frames) < 2:
        return [f"pck_t is null: {kept}"]
    return [
        f"pck_t carries points by rendered depth and by {FLOW} between renders of a fixed camera, where published "
        f"methods use their own deformation; {kept}"
    ]


def _refinement(run: RunDir, train: Clip) -> list[str]:
    """What the scene stage did to the training cameras."""
    if (corrections := load_corrections(run.scene, train)) is None:
        return []
    degrees, shift = (float(value) for value in corrections.numbers().values())
    return [
        f"the training cameras were refined, by {degrees:.2g} degrees and {shift:.2g} units of the capture on average; "
        "the cameras that are scored are as given"
    ]
