"""What others report on the seven iPhone scenes of DyCheck, at factor 2 with its cameras and covisible masks.

Numbers are copied, never computed here: from the papers and repositories that `source` names. Protocols that use other
scenes, sizes, cameras or masks differ by more than 1 dB for one method and are left out.
"""

from dataclasses import dataclass

SCENES = ("apple", "block", "paper-windmill", "space-out", "spin", "teddy", "wheel")
PROTOCOL = "DyCheck iPhone, 7 scenes, factor 2 (360x480), DyCheck's cameras and covisible masks"


@dataclass(frozen=True)
class Published:
    """One row: mPSNR in dB, mSSIM, mLPIPS, PCK-T; None where the source gives no number."""

    method: str
    psnr: float | None
    ssim: float | None
    lpips: float | None
    source: str
    pck_t: float | None = None


_DYCHECK = "DyCheck docs/BENCHMARK.md; mSSIM from ViDAR (arXiv 2506.18792), Table 1"
_SMG = "table of the SMG paper"
_VIDAR = "ViDAR (arXiv 2506.18792), Table 1"

MEANS = (
    Published("T-NeRF", 16.96, 0.577, 0.379, _DYCHECK),
    Published("NSFF", 15.46, 0.551, 0.396, _DYCHECK, 0.256),
    Published("Nerfies", 16.45, 0.570, 0.339, _DYCHECK, 0.453),
    Published("HyperNeRF", 16.81, 0.569, 0.332, _DYCHECK, 0.400),
    Published("RoDynRF", 17.10, 0.534, 0.517, _VIDAR),
    Published("DpDy (paper)", None, 0.559, 0.516, "arXiv 2512.11356, Table 1(b)"),
    Published("Dynamic 3D Gaussians", 7.29, None, 0.692, _SMG),
    Published("4D-GS", 13.64, None, 0.428, _SMG),
    Published("D-NPC", 16.41, 0.582, 0.319, _SMG),
    Published("PGDVS", 15.88, 0.548, 0.340, _SMG),
    Published("DynPoint", 16.89, 0.573, None, _SMG),
    Published("DyBluRF", 17.37, 0.591, 0.373, _SMG),
    Published("CTNeRF", 17.69, 0.531, None, _SMG),
    Published("Dynamic Gaussian Marbles", 16.72, None, 0.418, "README of the method, with poses"),
    Published("Shape of Motion", 17.32, 0.598, 0.296, "SMG paper and arXiv 2512.11356"),
    Published("Shape of Motion", 18.62, 0.682, 0.238, _VIDAR),
    Published("MOSAIC-GS", 18.40, None, 0.255, "MOSAIC-GS (CVPR 2026), as reported by others"),
    Published("MoSca", 19.32, 0.706, 0.264, "SMG paper and ViDAR (arXiv 2506.18792); see the note on test cameras"),
    Published("Prior-Enhanced GS", 19.43, 0.711, 0.260, "arXiv 2512.11356"),
    Published("SMG", 19.54, 0.718, 0.250, "SMG paper"),
    Published("OriGS", 19.69, 0.716, 0.256, "its own paper, in the SMG paper's table"),
    Published("OriGS", 19.43, 0.695, 0.281, "re-run, in the SMG paper's table"),
    Published("ViDAR", 19.69, 0.713, 0.223, "arXiv 2506.18792"),
)

PER_SCENE_SOURCE = "ViDAR supplement (arXiv 2506.18792), Table 5"
PER_SCENE: dict[str, dict[str, tuple[float, float, float]]] = {  # scene, method: mPSNR, mSSIM, mLPIPS
    "apple": {
        "T-NeRF": (17.43, 0.729, 0.508),
        "HyperNeRF": (17.64, 0.743, 0.478),
        "Shape of Motion": (18.95, 0.811, 0.292),
        "MoSca": (19.40, 0.807, 0.339),
        "ViDAR": (19.18, 0.801, 0.315),
    },
    "block": {
        "T-NeRF": (17.52, 0.669, 0.346),
        "HyperNeRF": (17.54, 0.670, 0.331),
        "Shape of Motion": (17.99, 0.663, 0.261),
        "MoSca": (18.11, 0.680, 0.342),
        "ViDAR": (18.91, 0.690, 0.217),
    },
    "paper-windmill": {
        "T-NeRF": (17.55, 0.367, 0.258),
        "HyperNeRF": (17.38, 0.382, 0.209),
        "Shape of Motion": (20.85, 0.673, 0.154),
        "MoSca": (22.24, 0.745, 0.162),
        "ViDAR": (22.48, 0.752, 0.129),
    },
    "space-out": {
        "T-NeRF": (17.71, 0.591, 0.377),
        "HyperNeRF": (17.93, 0.605, 0.320),
        "Shape of Motion": (19.64, 0.631, 0.237),
        "MoSca": (20.35, 0.658, 0.270),
        "ViDAR": (21.58, 0.689, 0.201),
    },
    "spin": {
        "T-NeRF": (19.16, 0.567, 0.443),
        "HyperNeRF": (19.20, 0.561, 0.325),
        "Shape of Motion": (21.05, 0.780, 0.170),
        "MoSca": (21.06, 0.710, 0.208),
        "ViDAR": (21.28, 0.721, 0.185),
    },
    "teddy": {
        "T-NeRF": (13.71, 0.570, 0.429),
        "HyperNeRF": (13.97, 0.568, 0.350),
        "Shape of Motion": (14.00, 0.546, 0.340),
        "MoSca": (15.09, 0.613, 0.359),
        "ViDAR": (15.97, 0.642, 0.310),
    },
    "wheel": {
        "T-NeRF": (15.65, 0.548, 0.293),
        "HyperNeRF": (13.99, 0.455, 0.310),
        "Shape of Motion": (17.86, 0.670, 0.214),
        "MoSca": (17.95, 0.685, 0.231),
        "ViDAR": (18.46, 0.694, 0.206),
    },
}

NOTES = (
    "one method has other numbers in other papers; rows are those of the source that is named",
    "published PCK-T is of points that a method's own deformation carries; ours is told under pck_t",
    "the released evaluation of MoSca optimises each test camera against the true test image before it is scored; here "
    "views are rendered at the given camera",
)
