"""A cheap density over space and time that says where along a ray the samples should go (mip-NeRF 360)."""

import torch
from torch import Tensor, nn

from dpdy_core.config import FieldsConfig
from dpdy_core.scene.grid import space_grid, time_grids
from dpdy_core.scene.hashgrid import Backend, make_encoder
from dpdy_core.scene.mlp import mlp, truncated_exp


class ProposalField(nn.Module):
    """Small grids over space and over space-time, one small MLP."""

    def __init__(self, config: FieldsConfig, time_cells: int, backend: Backend, generator: torch.Generator) -> None:
        super().__init__()
        levels = max(2, config.proposal_grid.levels // 2)
        grids = [space_grid(config.proposal_grid), *time_grids(config.proposal_grid, time_cells, levels)]
        self.encoder = make_encoder(grids, backend, generator)
        self.network = mlp([self.encoder.width, 16, 1], generator)

    def forward(self, points: Tensor) -> Tensor:
        """Density (N,) at `points` (N, 4): unit cube and time."""
        return truncated_exp(self.network(self.encoder(points))[:, 0] - 1)
