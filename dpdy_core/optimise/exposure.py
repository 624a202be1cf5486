"""How bright each training frame is."""

import torch
from torch import Tensor, nn


class Exposure(nn.Module):
    """A gain per frame and channel on the rendered colours of training rays, one at the start.

    Log-gains count after their mean over the frames is taken out: a render without a gain has the clip's mean exposure.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(frames, 3))

    def gains(self) -> Tensor:
        """(T, 3), of geometric mean one over the frames."""
        return (self.log_gain - self.log_gain.mean(dim=0)).exp()

    @torch.no_grad()
    def numbers(self) -> dict[str, Tensor]:
        """The largest gain or its inverse, as a factor."""
        return {"exposure_factor": self.gains().log().abs().amax().exp()}
