"""Multi-resolution hash grids (Instant-NGP, Mueller et al. 2022) in plain torch, for CPU and CUDA.

All levels of all grids of a field are computed together, in two batched passes: those whose vertices fit the table
(dense indexing) and those that share it (spatial hash). Arrays are corner-major, (8, levels, points), so that every
elementwise operation runs over contiguous points: on a CPU this is several times as fast as (points, levels, 8).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dpdy_core.scene.grid import COLUMNS, Grid, Triple

PRIMES = (1, 2654435761 - 2**32, 805459861)  # Instant-NGP, equation 4, as 32-bit two's complement
INITIAL = 1e-4  # Instant-NGP, section 3: features start uniform in +-1e-4


class LevelGroup(nn.Module):
    """Levels that are indexed alike, with their rows in the shared table."""

    axes: Tensor
    cells: Tensor
    strides: Tensor
    offsets: Tensor
    masks: Tensor

    def __init__(self, levels: Sequence[tuple[Grid, Triple, int]], hashed: bool) -> None:
        super().__init__()
        self.hashed = hashed
        axes = torch.tensor([grid.axes for grid, _, _ in levels])
        cells = torch.tensor([cells for _, cells, _ in levels], dtype=torch.int32)
        rows = cells.long() + 1
        dense = torch.stack([torch.ones_like(rows[:, 0]), rows[:, 0], rows[:, 0] * rows[:, 1]], dim=1)
        strides = torch.tensor(PRIMES).expand(len(levels), 3) if hashed else dense
        for name, value in {
            "axes": axes.T.contiguous(),  # (3, L)
            "cells": cells.T[:, :, None].contiguous(),  # (3, L, 1)
            "strides": strides.T[:, :, None].to(torch.int32).contiguous(),
            "offsets": torch.tensor([start for _, _, start in levels], dtype=torch.int32)[:, None],
            "masks": torch.tensor([2**grid.log2_table - 1 for grid, _, _ in levels], dtype=torch.int32)[:, None],
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, bool]:
        """What `locate` needs to know."""
        return self.axes, self.cells, self.strides, self.offsets, self.masks, self.hashed


def locate(
    columns: Tensor, axes: Tensor, cells: Tensor, strides: Tensor, offsets: Tensor, masks: Tensor, hashed: bool
) -> tuple[Tensor, Tensor]:
    """Table rows (int32) and trilinear weights, both (8, L, N), of the points in `columns` (COLUMNS, N)."""
    position = columns.index_select(0, axes.flatten()).view(3, -1, columns.shape[1]) * cells
    low = torch.minimum(position.to(torch.int32), cells - 1)
    upper_share = position - low
    near, far = low * strides, (low + 1) * strides
    if hashed:
        near, far = near & masks, far & masks
    x, y, z = torch.stack([near, far], dim=1).unbind(0)  # each (2, L, N)
    # Hashed tables start at a multiple of their size, so adding the start to one term survives the xor.
    x = x + offsets
    xy = x[:, None] ^ y[None] if hashed else x[:, None] + y[None]
    rows = xy[:, :, None] ^ z[None, None] if hashed else xy[:, :, None] + z[None, None]
    u, v, w = torch.stack([1 - upper_share, upper_share], dim=1).unbind(0)
    weights = (u[:, None] * v[None])[:, :, None] * w[None, None]
    return rows.flatten(0, 2), weights.flatten(0, 2)


class _Interpolate(torch.autograd.Function):
    """`interpolate` for the CPU: scalars are gathered and scattered one feature at a time, far faster there."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        flat = rows.flatten()
        columns = (table[:, f].contiguous() for f in range(table.shape[1]))
        return torch.stack([(c.index_select(0, flat).view(rows.shape) * weights).sum(0) for c in columns])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        flat = rows.flatten()
        of_table, of_weights = None, None
        if ctx.needs_input_grad[0]:
            of_table = grad.new_zeros(table.shape[1], table.shape[0])
            for column, part in zip(of_table, grad.contiguous(), strict=True):
                column.index_add_(0, flat, (weights * part).flatten())
            of_table = of_table.T.contiguous()
        if ctx.needs_input_grad[2]:
            columns = (table[:, f].contiguous() for f in range(table.shape[1]))
            of_weights = sum(
                (c.index_select(0, flat).view(rows.shape) * part for c, part in zip(columns, grad, strict=True)),
                start=torch.zeros_like(weights),
            )
        return of_table, None, of_weights


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Features (F, L, N): the rows of `table` (M, F) summed with `weights` over the first axis of (8, L, N)."""
    if not table.is_cuda:
        return _Interpolate.apply(table, rows, weights)
    gathered = table.index_select(0, rows.flatten()).view(*rows.shape, -1)
    return (gathered * weights[..., None]).sum(0).permute(2, 0, 1)


def encode_group(table: Tensor, columns: Tensor, *group: Any) -> Tensor:
    """Features (F, L, N) of the points in `columns` (COLUMNS, N) at the levels of a `group` (see `locate`)."""
    return interpolate(table, *locate(columns, *group))


class TorchHashGrid(nn.Module):
    """The grids of one field: features (N, width) of points (N, D) in [0, 1].

    Points get gradients where they ask for them (camera refinement): those of the cell they lie in.
    """

    shares: Tensor  # (rows,) of a squared feature in the mean of its level

    def __init__(self, grids: Sequence[Grid], generator: torch.Generator) -> None:
        super().__init__()
        features = {grid.features for grid in grids}
        if len(features) != 1:
            raise ValueError(f"grids of one encoder must have equal features, not {sorted(features)}")
        self.features = features.pop()
        self.width = sum(grid.levels for grid in grids) * self.features
        self.groups, rows, shares = _layout(grids)
        self.register_buffer("shares", shares / self.features, persistent=False)
        table = torch.rand((rows, self.features), generator=generator) * 2 - 1
        self.table = nn.Parameter(table * INITIAL)
        self.encode: Callable[..., Tensor] = encode_group  # or that compiled: see `fusion`

    def decay(self) -> Tensor:
        """0-dim: the mean squared feature of each hashed level, summed (Zip-NeRF, section 4, there of all levels).

        Cells that no ray reaches show what others wrote into the rows they share: small features leave them to the
        coarse levels, which share none and go on smoothly.
        """
        return (self.table.square().sum(dim=-1) * self.shares).sum()

    def forward(self, points: Tensor) -> Tensor:
        """Features (N, width) of `points` (N, D) in [0, 1]."""
        # of space alone, too: all encoders share one compiled kernel
        columns = pad(points.clamp(0, 1).T, (0, 0, 0, COLUMNS - points.shape[1])).contiguous()
        features = [self.encode(self.table, columns, *group()) for group in self.groups]
        return torch.cat(features, dim=1).view(self.width, -1).T.contiguous()


def _layout(grids: Sequence[Grid]) -> tuple[nn.ModuleList, int, Tensor]:
    """The non-empty groups (dense, hashed), the number of table rows, and of each its share in a hashed level or 0."""
    levels = [(grid, cells) for grid in grids for cells in grid.resolutions()]
    dense, hashed, start = [], [], 0
    for grid, cells in levels:
        if _vertices(cells) <= 2**grid.log2_table:
            dense.append((grid, cells, start))
            start += _vertices(cells)
    for grid, cells in levels:
        if _vertices(cells) > 2**grid.log2_table:
            start = -(-start // 2**grid.log2_table) * 2**grid.log2_table  # aligned: see LevelGroup.forward
            hashed.append((grid, cells, start))
            start += 2**grid.log2_table
    groups = [LevelGroup(group, is_hashed) for group, is_hashed in ((dense, False), (hashed, True)) if group]
    shares = torch.zeros(start)
    for grid, _, first in hashed:
        shares[first : first + 2**grid.log2_table] = 1 / 2**grid.log2_table
    return nn.ModuleList(groups), start, shares


def _vertices(cells: Triple) -> int:
    return (cells[0] + 1) * (cells[1] + 1) * (cells[2] + 1)
