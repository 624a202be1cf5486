"""How settings move over training."""

from dpdy_core.config import SceneConfig
from dpdy_core.section import Number, within

WARM_UP = 0.02  # share of training
CAMERAS_FROM, CAMERAS_FULL = 0.1, 0.2  # share of training: a scene that is still fog says nothing about its cameras


def learning_rate_factor(progress: float, final: float) -> float:
    """Factor on the learning rates at `progress` in [0, 1]: a linear warm-up, then exponential decay to `final`."""
    warm = min(1.0, (progress + 1e-3) / WARM_UP)
    return float(warm * max(final, 1e-6) ** progress)


def camera_rate_factor(progress: float) -> float:
    """Further factor on the learning rate of the camera corrections: they wait for the scene to take shape."""
    return min(1.0, max(0.0, (progress - CAMERAS_FROM) / (CAMERAS_FULL - CAMERAS_FROM)))


def proposal_anneal(progress: Number) -> Number:
    """Exponent on the proposal's weights at `progress`: near zero at first, one from a quarter of training on.

    mip-NeRF 360, section 5 (slope 10).
    """
    share = within(progress / 0.25)
    return 10 * share / (9 * share + 1)


def prior_begins(scene: SceneConfig) -> float | None:
    """The training progress at which distillation or refinement begins, None if there is neither."""
    return min((term.begin for term in (scene.sds, scene.video_sds, scene.refinement) if term.enabled), default=None)


def first_step(begin: float, steps: int) -> int:
    """The first of `steps` before which the training progress is at least `begin`; `steps` if there is none."""
    return next((step for step in range(steps) if step / steps >= begin), steps)
