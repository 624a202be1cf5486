"""Hash grids by tinycudann. The only file that imports it; it is optional and needs CUDA."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dpdy_core.scene.grid import COLUMNS, Grid


class TcnnHashGrid(nn.Module):
    """The same grids as `TorchHashGrid`, one tinycudann encoding each.

    tinycudann has one growth factor for all axes: an axis with fewer cells at the last level (time) is scaled down
    instead, so that its finest cells agree and its coarser ones are wider than `Grid.resolutions` says. Features
    are in another order than the torch backend's: checkpoints of the two are not interchangeable.
    """

    def __init__(self, grids: Sequence[Grid], generator: torch.Generator) -> None:
        super().__init__()
        import tinycudann

        self.axes = [list(grid.axes) for grid in grids]
        self.levels = [grid.levels for grid in grids]
        self.width = sum(grid.levels * grid.features for grid in grids)
        self.encodings = nn.ModuleList(
            tinycudann.Encoding(
                3,
                {
                    "otype": "HashGrid",
                    "n_levels": grid.levels,
                    "n_features_per_level": grid.features,
                    "log2_hashmap_size": grid.log2_table,
                    "base_resolution": max(grid.coarsest),
                    "per_level_scale": (max(grid.finest) / max(grid.coarsest)) ** (1 / max(grid.levels - 1, 1)),
                },
                seed=int(torch.randint(2**31, (), generator=generator)),
                dtype=torch.float32,
            )
            for grid in grids
        )
        for index, grid in enumerate(grids):
            scale = torch.tensor(grid.finest, dtype=torch.float32) / max(grid.finest)
            self.register_buffer(f"scale_{index}", scale, persistent=False)

    def decay(self) -> Tensor:
        """0-dim: the mean squared feature of each grid, times its levels: tinycudann hides where a level ends."""
        means = [parameters.float().square().mean() for parameters in self.encodings.parameters()]
        return torch.stack([levels * mean for levels, mean in zip(self.levels, means, strict=True)]).sum()

    def forward(self, points: Tensor) -> Tensor:
        """Features (N, width) of `points` (N, D) in [0, 1]."""
        points = pad(points, (0, COLUMNS - points.shape[1]))
        features = [
            encoding(points[:, axes] * self.get_buffer(f"scale_{index}"))
            for index, (axes, encoding) in enumerate(zip(self.axes, self.encodings, strict=True))
        ]
        return torch.cat(features, dim=-1).float()
