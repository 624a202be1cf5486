"""The part of the scene that changes: what moves, and the shadows that it throws."""

import torch
from torch import Tensor, nn

from dpdy_core.config import FieldsConfig
from dpdy_core.scene.grid import space_grid, time_grids
from dpdy_core.scene.hashgrid import Backend, make_encoder
from dpdy_core.scene.mlp import mlp, truncated_exp, truncated_sigmoid

START = -4.0  # logit of the density before training: almost empty, so that the static field explains what it can
LIT, STEEP = -3.0, 8.0  # logit of the shadow before training: hardly any; and how fast it may deepen


class DynamicField(nn.Module):
    """Three hash grids over x, y, t; x, z, t and y, z, t, concatenated into one small MLP (DpDy).

    With `shadows` it also says how much light the static field has lost at a place and time (D2NeRF's shadow field).
    With `dynamic_space_grid` a grid over x, y, z joins them; with `whole_scene`, the field of a scene without a static
    part, one as large as that of the static field.
    """

    def __init__(
        self, config: FieldsConfig, time_cells: int, whole_scene: bool, backend: Backend, generator: torch.Generator
    ) -> None:
        super().__init__()
        grids = time_grids(config.dynamic_grid, time_cells)
        if whole_scene:
            grids.append(space_grid(config.static_grid))
        elif config.dynamic_space_grid:
            grids.append(space_grid(config.dynamic_grid))
        self.encoder = make_encoder(grids, backend, generator)
        self.start = -1.0 if whole_scene else START
        self.shadows = config.shadows and not whole_scene
        self.network = mlp([self.encoder.width, config.hidden, config.hidden, 5 + self.shadows], generator)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Density (N,), colour (N, 3), blend weight (N,) and shadow (N,) in [0, 1] at `points` (N, 4): unit cube, time.

        Density is per unit of normalised length. The blend weight is used by `blend="learned"` only.
        """
        out = self.network(self.encoder(points))
        shadow = (STEEP * out[:, 5] + LIT).sigmoid() if self.shadows else torch.zeros_like(out[:, 0])
        colour = truncated_sigmoid(out[:, 1:4])
        return truncated_exp(out[:, 0] + self.start), colour, out[:, 4].sigmoid(), shadow
