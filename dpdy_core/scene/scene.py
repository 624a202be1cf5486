"""The 4D scene: a static and a dynamic field, a proposal field, and the space they live in."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpdy_core.config import FieldsConfig, SamplingConfig
from dpdy_core.scene.contraction import Bounds, unit_cube
from dpdy_core.scene.dynamic_field import DynamicField
from dpdy_core.scene.hashgrid import Backend
from dpdy_core.scene.hashgrid_torch import TorchHashGrid
from dpdy_core.scene.proposal_field import ProposalField
from dpdy_core.scene.static_field import StaticField


@dataclass(frozen=True)
class FieldSamples:
    """Both fields at R x S points. Densities are per unit of normalised length, colours in [0, 1]."""

    static_density: Tensor  # (R, S); zeros in a scene without a static field
    static_colour: Tensor  # (R, S, 3), in its shadow
    dynamic_density: Tensor  # (R, S)
    dynamic_colour: Tensor  # (R, S, 3)
    blend: Tensor  # (R, S) weight of the dynamic field in [0, 1], for blend="learned"
    shadow: Tensor  # (R, S) share of the static colour that is lost, in [0, 1]


class Scene(nn.Module):
    """Everything that is optimised, and all that is needed to render it again.

    `generator` (CPU) decides the initial values; `frames` is the number of training frames.
    """

    centre: Tensor
    axes: Tensor

    def __init__(
        self,
        fields: FieldsConfig,
        sampling: SamplingConfig,
        bounds: Bounds,
        frames: int,
        backend: Backend,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.sampling, self.bounds, self.frames, self.backend = fields, sampling, bounds, frames, backend
        self.register_buffer("centre", torch.tensor(bounds.centre), persistent=False)
        self.register_buffer("axes", torch.tensor(bounds.axes), persistent=False)
        time_cells = max(1, round(fields.time_resolution * max(frames - 1, 1)))
        self.static = StaticField(fields, backend, generator) if fields.split else None
        self.dynamic = DynamicField(fields, time_cells, not fields.split, backend, generator)
        self.proposal = ProposalField(fields, max(1, time_cells // 2), backend, generator)

    def sample(self, points: Tensor, directions: Tensor, times: Tensor) -> FieldSamples:
        """Both fields at world `points` (R, S, 3) on rays of `directions` (R, 3) at `times` (R,) in [0, 1]."""
        rays, samples, _ = points.shape
        cube, space_time = self._coordinates(points, times)
        density, colour, blend, shadow = (
            value.view(rays, samples, *value.shape[1:]) for value in self.dynamic(space_time)
        )
        dynamic = density, colour
        if self.static is None:
            static = torch.zeros_like(dynamic[0]), torch.zeros_like(dynamic[1])
        else:
            unit = nn.functional.normalize(directions, dim=-1)[:, None].expand(-1, samples, -1).reshape(-1, 3)
            density, colour = self.static(cube, unit)
            static = density.view(rays, samples), (1 - shadow)[..., None] * colour.view(rays, samples, 3)
        return FieldSamples(*static, *dynamic, blend=blend, shadow=shadow)

    def propose(self, points: Tensor, times: Tensor) -> Tensor:
        """Density (R, S) of the proposal field at world `points` (R, S, 3) at `times` (R,)."""
        _, space_time = self._coordinates(points, times)
        density: Tensor = self.proposal(space_time)
        return density.view(points.shape[:2])

    def _coordinates(self, points: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        cube = unit_cube(points, self.centre, self.axes, self.bounds.radius).reshape(-1, 3)
        return cube, torch.cat([cube, times[:, None].expand(points.shape[:2]).reshape(-1, 1)], dim=-1)

    def encoders(self) -> list[TorchHashGrid]:
        """The hash grids of the torch backend."""
        return [module for module in self.modules() if isinstance(module, TorchHashGrid)]

    def decay(self) -> Tensor:
        """0-dim: the mean squared feature of each hashed level of each grid, summed."""
        fields = [field for field in (self.static, self.dynamic, self.proposal) if field is not None]
        return torch.stack([field.encoder.decay() for field in fields]).sum()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the learning rate they take: "grid" and "mlp"."""
        groups: dict[str, list[nn.Parameter]] = {"grid": [], "mlp": []}
        for name, parameter in self.named_parameters():
            groups["grid" if ".encoder." in name else "mlp"].append(parameter)
        return groups
