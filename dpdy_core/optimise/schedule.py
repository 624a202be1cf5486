"""How settings move over training."""

WARM_UP = 0.02  # share of training


def learning_rate_factor(progress: float, final: float) -> float:
    """Factor on the learning rates at `progress` in [0, 1]: a linear warm-up, then exponential decay to `final`."""
    warm = min(1.0, (progress + 1e-3) / WARM_UP)
    return float(warm * max(final, 1e-6) ** progress)


def proposal_anneal(progress: float) -> float:
    """Exponent on the proposal's weights: near zero at first, one from a quarter of training on.

    mip-NeRF 360, section 5 (slope 10).
    """
    share = min(1.0, progress / 0.25)
    return 10 * share / (9 * share + 1)
