"""Which way a scene's grids lie: along its floor and walls, so that a cell, and a plane of cells, can hold one."""

from itertools import permutations, product

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dpdy_core.ingest.clip import Clip

FRAMES, NORMALS = 16, 20_000  # that tell, evenly chosen; fewer than FEW tell nothing
FEW = 100
JUMP = 0.05  # relative difference in depth between neighbours that lie on two surfaces
STARTS, ROUNDS = 16, 30  # rotations tried, steps from each
CLOSE = 32  # power at which, in the end, only normals within some 15 degrees of an axis have a say
EQUAL = 1e-3  # relative difference between two starts that says nothing
FAINT = 1e-3  # how much a step keeps of where it was: what no normal decides stays


def surface_normals(clip: Clip) -> Tensor:
    """(N, 3) float64 unit normals in world space of what stands still in some frames of `clip`, from their depth."""
    if clip.depth is None or min(clip.depth.shape[1:]) < 3:
        return torch.empty(0, 3, dtype=torch.float64)
    chosen = torch.linspace(0, len(clip) - 1, min(FRAMES, len(clip))).round().long()
    depth = clip.depth[chosen].cpu().double()
    cameras = clip.cameras[chosen.to(clip.cameras.focal.device)].to("cpu")
    origins, directions = (torch.stack(part) for part in zip(*map(cameras.image_rays, range(len(chosen))), strict=True))
    points = origins + depth[..., None] * directions
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    middle = depth[:, 1:-1, 1:-1]
    around = torch.stack([depth[:, 1:-1, 2:], depth[:, 1:-1, :-2], depth[:, 2:, 1:-1], depth[:, :-2, 1:-1]])
    smooth = (middle > 0) & ((around - middle).abs() < JUMP * middle).all(dim=0)
    if clip.motion is not None:
        smooth &= ~clip.motion[chosen].cpu()[:, 1:-1, 1:-1]
    normals = torch.linalg.cross(across, down)[smooth]
    step = max(1, len(normals) // NORMALS)
    return normalize(normals[::step], dim=-1)


def find_axes(normals: Tensor) -> Tensor:
    """Three orthonormal, right-handed axes, the rows of (3, 3) float64, along which unit `normals` (N, 3) mostly lie.

    They maximise the sum of the fourth powers of the normals' coordinates, by repeated projection from several
    starts (Zhai et al. 2020, "Complete dictionary learning via l4-norm maximization over the orthogonal group":
    matching, stretching, projection); then, from there, that of powers of CLOSE, which leaves out what lies askew. Of
    their orders and signs it is that nearest to the world's own axes, which they are where too few normals tell.
    """
    own = torch.eye(3, dtype=torch.float64)
    if len(normals) < FEW:
        return own
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(STARTS - 1, 3, 3, generator=generator, dtype=torch.float64)).Q
    axes = _pulled(torch.cat([own[None], turned]), normals, 4)
    alike = (normals @ axes.mT).pow(4).sum(dim=(1, 2))
    first = int(torch.nonzero(alike > alike.max() * (1 - EQUAL))[0, 0])  # one wall leaves all starts equally good
    best = _pulled(axes[first], normals, CLOSE)
    orders = torch.stack([own[list(order)] for order in permutations(range(3))])
    signs = torch.tensor(list(product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    rows = (signs[:, None, :, None] * (orders @ best)[None]).flatten(0, 1)  # (48, 3, 3)
    rows = rows[torch.linalg.det(rows) > 0]
    nearest: Tensor = rows[int(rows.diagonal(dim1=1, dim2=2).sum(dim=1).argmax())]
    return nearest


def _pulled(axes: Tensor, normals: Tensor, power: int) -> Tensor:
    """Orthonormal `axes` (..., 3, 3), turned to a maximum of the sum of even powers of the normals' coordinates."""
    for _ in range(ROUNDS):
        pull = (normals @ axes.mT).pow(power - 1).mT @ normals / len(normals)
        left, _, right = torch.linalg.svd(pull + FAINT * axes)
        axes = left @ right
    return axes
