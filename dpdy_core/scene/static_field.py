"""The part of the scene that does not move: density and colour over space."""

import torch
from torch import Tensor, nn

from dpdy_core.config import FieldsConfig
from dpdy_core.scene.grid import plane_grids, space_grid
from dpdy_core.scene.hashgrid import Backend, make_encoder
from dpdy_core.scene.mlp import mlp, spherical_harmonics, truncated_exp, truncated_sigmoid

GEOMETRY = 15  # width of the feature handed from the density to the colour MLP (Instant-NGP)
START = -1.0  # logit of the density before training: a faint haze, so that every surface gets gradients


class StaticField(nn.Module):
    """Hash grids over space and its three planes; a density MLP; a colour MLP that may see the viewing direction."""

    def __init__(self, config: FieldsConfig, backend: Backend, generator: torch.Generator) -> None:
        super().__init__()
        grids = [space_grid(config.static_grid)]
        if config.static_planes:
            grids += plane_grids(config.dynamic_grid)
        self.encoder = make_encoder(grids, backend, generator)
        self.density = mlp([self.encoder.width, config.hidden, 1 + GEOMETRY], generator)
        self.view_dependence = config.view_dependence
        inputs = GEOMETRY + 9 * config.view_dependence
        self.colour = mlp([inputs, config.hidden, config.hidden, 3], generator)

    def forward(self, points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density (N,) and colour (N, 3) in [0, 1] at `points` (N, 3) in the unit cube, seen along unit `directions`.

        Density is per unit of normalised length.
        """
        features = self.density(self.encoder(points))
        geometry = features[:, 1:]
        if self.view_dependence:
            geometry = torch.cat([geometry, spherical_harmonics(directions)], dim=-1)
        return truncated_exp(features[:, 0] + START), truncated_sigmoid(self.colour(geometry))
