"""How surely a focal length is known, and what is known of one before any picture is looked at. Torch-free.

Letters: f a focal length over the picture's longer side; s a standard deviation of log f, about that of f as a share.
"""

from dataclasses import dataclass

import numpy as np

SURE = 0.03  # deviation up to which a focal length counts as found
OTHER_LENS = 2.0  # deviations beyond which the camera is of another kind than was expected: then nothing is expected


@dataclass(frozen=True)
class FocalPrior:
    """What is expected of f: its logarithm is normal around that of `share`, with standard deviation `deviation`."""

    share: float
    deviation: float


# The main cameras of phones are 23 to 28 mm for 35 mm film (Apple's specifications: 28 mm up to iPhone 7, 26 mm up to
# iPhone 13, 24 mm after; Android phones 23 to 27 mm), which is 0.66 to 0.81 of a 4:3 sensor's width (see
# metadata.focal_share), and stabilised video is cut narrower by 0 to 20 %: 0.66 to 0.97. Nobody measured how often each
# occurs; a deviation of 20 % around 0.85, nearly all of that range, leaves room for other cameras.
PHONE = FocalPrior(0.85, 0.2)
TAGGED_DEVIATION = 0.1  # tags tell the lens, not the cut of stabilised video


def prior_of(hint: float | None) -> FocalPrior:
    """What is expected where the file's tags tell the focal length `hint` over the longer side, or nothing."""
    return PHONE if hint is None else FocalPrior(hint, TAGGED_DEVIATION)


def weighed(measured: float, deviation: float, prior: FocalPrior) -> tuple[float, float]:
    """f and s of a `measured` f of that `deviation` and a `prior`: means of logarithms by inverse variance.

    A measurement that contradicts the prior stands alone.
    """
    away = np.log(prior.share / measured)
    total = deviation**2 + prior.deviation**2
    if abs(away) > OTHER_LENS * np.sqrt(total):
        return measured, deviation
    share = deviation**2 / total  # of the prior
    return float(measured * np.exp(share * away)), float(deviation * prior.deviation / np.sqrt(total))
