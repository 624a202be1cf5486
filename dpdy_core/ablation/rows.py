"""What an ablation compares, as data: rows of settings, and what the method is expected to show."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dpdy_core.errors import BadSettings

NO_VIDEOS: dict[str, Any] = {"render.paths": []}  # the test views are rendered once, by the evaluation
NO_PRIOR: dict[str, Any] = {
    "scene.sds.enabled": False,
    "scene.video_sds.enabled": False,
    "scene.refinement.enabled": False,
    "prior.finetune": "none",
}
# as strong as it was before painted views took over most of its work
SDS_ALONE: dict[str, Any] = {"scene.refinement.enabled": False, "scene.sds.every": 4, "scene.sds.weight": 1e-4}


@dataclass(frozen=True)
class Row:
    """One line of the table: `settings` laid over the preset and the user's own; `repeated` rows run with all seeds."""

    name: str
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    repeated: bool = False


ROWS = (
    Row("full", "full method", repeated=True),
    Row("no_prior", "no prior", NO_PRIOR, repeated=True),
    Row("unfinetuned", "prior not finetuned", {"prior.finetune": "none"}),
    Row("rgb_only", "SDS on colour alone", {"scene.sds.rgb_only": True}),
    Row(
        "rgb_prior",
        "SDS and painted views on colour alone",
        {"scene.sds.rgb_only": True, "scene.refinement.depth_weight": 0.0},
    ),
    Row("no_video_sds", "without video SDS", {"scene.video_sds.enabled": False}),
    Row("video_sds", "with video SDS", {"scene.video_sds.enabled": True}),
    Row("no_sds", "painted views without SDS", {"scene.sds.enabled": False, "scene.refinement.enabled": True}),
    Row("no_refinement", "SDS without painted views", SDS_ALONE),
    Row("no_refinement_rgb", "the same on colour alone", {**SDS_ALONE, "scene.sds.rgb_only": True}),
    Row(
        "smooth_fill",
        "a smooth fill in place of the prior",
        {
            "scene.sds.enabled": False,
            "scene.refinement.enabled": True,
            "scene.refinement.start": "fill",
            "scene.refinement.strength": 0.0,
            "prior.finetune": "none",
        },
    ),
    Row("one_field", "one dynamic field", {"scene.fields.split": False}),
    Row("depth_none", "no depth loss", {"scene.losses.depth_loss": "none"}),
    Row("depth_affine", "affine-invariant depth loss", {"scene.losses.depth_loss": "affine"}),
    Row("learned_blend", "learned blending weight", {"scene.fields.blend": "learned"}),
    Row("own_maps", "without given depth or masks", {"depth.source": "sweep", "masks.source": "epipolar"}),
    Row(
        "colour_only",
        "one field, colour only",
        {**NO_PRIOR, "scene.fields.split": False, "scene.losses.depth_loss": "none"},
    ),
)


@dataclass(frozen=True)
class Expectation:
    """`better` should exceed `worse` in `measure` by at least `least`; negative: may fall short by as much.

    Rows may also be baselines. Where `lower`, the measure is an error and the difference counts the other way round.
    """

    better: str
    worse: str
    measure: str
    least: float = 0.0
    lower: bool = False


EXPECTATIONS = (
    Expectation("full", "no_prior", "unseen.psnr", 1.0),
    Expectation("full", "no_prior", "unseen.ms_ssim"),
    Expectation("full", "no_prior", "covisible.psnr", -0.1),
    Expectation("full", "unfinetuned", "unseen.psnr"),
    Expectation("full", "rgb_only", "unseen.abs_rel", lower=True),
    Expectation("full", "rgb_prior", "unseen.abs_rel", lower=True),
    Expectation("no_refinement", "no_refinement_rgb", "unseen.abs_rel", lower=True),
    Expectation("video_sds", "no_video_sds", "static.flicker", lower=True),
    Expectation("video_sds", "no_video_sds", "sharpness", -0.02),
    Expectation("full", "one_field", "static.psnr", 2.0),
    Expectation("full", "depth_affine", "psnr"),
    Expectation("depth_affine", "depth_none", "psnr"),
    Expectation("full", "all_times_warp", "psnr", 1.5),
    Expectation("full", "all_times_warp", "moving.psnr"),
    Expectation("full", "all_times_warp", "unseen.psnr", 2.0),
    Expectation("own_maps", "colour_only", "psnr", 1.5),
)


def chosen_rows(names: Sequence[str] | None) -> list[Row]:
    """The rows called `names` in the order of the table, or all. Raises BadSettings for an unknown name."""
    known = {row.name for row in ROWS}
    if unknown := sorted(set(names or ()) - known):
        raise BadSettings(f"there is no row {', '.join(unknown)}", f"use some of {', '.join(r.name for r in ROWS)}")
    return [row for row in ROWS if not names or row.name in names]
