"""Which multi-resolution grids an encoder has: axes, levels and cells. No tensors."""

from dataclasses import dataclass

from dpdy_core.config import GridConfig

Triple = tuple[int, int, int]

COLUMNS = 4  # x, y, z, t; without time the last is 0
SPACE: Triple = (0, 1, 2)
SPACE_TIME: tuple[Triple, ...] = ((0, 1, 3), (0, 2, 3), (1, 2, 3))  # xyt, xzt, yzt (DpDy's dynamic field)


@dataclass(frozen=True)
class Grid:
    """One multi-resolution hash grid over three of the columns of the encoder's input."""

    axes: Triple  # columns of the input
    levels: int
    features: int
    log2_table: int
    coarsest: Triple  # cells per axis at the first level
    finest: Triple  # cells per axis at the last level

    def resolutions(self) -> list[Triple]:
        """Cells per axis of each level: geometric growth per axis (Instant-NGP, equations 2 and 3)."""
        last = max(self.levels - 1, 1)
        return [
            (
                _between(self.coarsest[0], self.finest[0], level / last),
                _between(self.coarsest[1], self.finest[1], level / last),
                _between(self.coarsest[2], self.finest[2], level / last),
            )
            for level in range(self.levels)
        ]


def _between(coarsest: int, finest: int, share: float) -> int:
    return max(1, round(coarsest * (finest / coarsest) ** share))


def space_grid(config: GridConfig) -> Grid:
    """The grid over x, y, z."""
    return Grid(
        axes=SPACE,
        levels=config.levels,
        features=config.features,
        log2_table=config.log2_table,
        coarsest=(config.base_resolution,) * 3,
        finest=(max(config.base_resolution, config.max_resolution),) * 3,
    )


def time_grids(config: GridConfig, time_cells: int, levels: int | None = None) -> list[Grid]:
    """The grids over x, y, t; x, z, t and y, z, t. Time has its own resolution: `time_cells` at the last level."""
    finest = max(config.base_resolution, config.max_resolution)
    return [
        Grid(
            axes=axes,
            levels=levels or config.levels,
            features=config.features,
            log2_table=config.log2_table,
            coarsest=(config.base_resolution, config.base_resolution, max(1, min(4, time_cells))),
            finest=(finest, finest, max(1, time_cells)),
        )
        for axes in SPACE_TIME
    ]


def plane_grids(config: GridConfig) -> list[Grid]:
    """The grids over x, y; x, z and y, z: those over time, with one cell along it, of a field that has no time.

    What a plane shows goes on along its normal where no ray reached.
    """
    return time_grids(config, time_cells=1)
