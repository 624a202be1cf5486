"""Camera poses of captures, checked. Torch-free."""

import numpy as np

from dpdy_core.errors import BadInput

_REMEDY = "give the 4x4 OpenGL camera-to-world matrix: x right, y up, the camera looks along -z"
_ROTATION_TOLERANCE = 5e-3  # half-precision poses are off by 1e-3
_MAX_COORDINATE = 1e6
_OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0])


def read_pose(written: object, what: str, remedy: str = _REMEDY) -> np.ndarray:
    """(4, 4) float64 of the matrix `written`, (4, 4) or (3, 4), its rotation made exactly orthonormal.

    `what` names the matrix. Raises BadInput for all that is no rigid motion of finite size.
    """
    try:
        given = np.array(written, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{what} is not a matrix of numbers", remedy) from error
    if given.shape not in ((4, 4), (3, 4)):
        raise BadInput(f"{what} has shape {given.shape}, not 4x4", remedy)
    if not np.isfinite(given).all():
        raise BadInput(f"{what} has NaN or infinite entries", remedy)
    if given.shape == (4, 4) and not np.allclose(given[3], [0, 0, 0, 1], atol=1e-6):
        raise BadInput(f"the last row of {what} is {given[3].tolist()}, not 0 0 0 1", remedy)
    if np.abs(given[:3, 3]).max() > _MAX_COORDINATE:
        raise BadInput(
            f"{what} puts the camera {np.abs(given[:3, 3]).max():.3g} units from the origin",
            f"move and scale the poses so that coordinates stay below {_MAX_COORDINATE:g}",
        )
    pose = np.eye(4)
    pose[:3, :3] = _rotation(given[:3, :3], what, remedy)
    pose[:3, 3] = given[:3, 3]
    return pose


def from_opencv(orientation: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(3, 4) OpenGL camera-to-world of a world-to-camera rotation (3, 3) with OpenCV axes and a centre (3,)."""
    return np.column_stack([orientation.T @ _OPENCV_TO_OPENGL, position])


def _rotation(given: np.ndarray, what: str, remedy: str) -> np.ndarray:
    """The nearest rotation (orthogonal Procrustes: U V^T of the singular value decomposition) if `given` is close."""
    left, lengths, right = np.linalg.svd(given)
    scale = float(lengths.mean())
    if np.ptp(lengths) > _ROTATION_TOLERANCE * max(scale, 1e-12):
        raise BadInput(
            f"the left 3x3 block of {what} is not a rotation (its axes are not orthogonal or"
            f" differ in length: singular values {', '.join(f'{x:.4g}' for x in lengths)})",
            remedy,
        )
    if abs(scale - 1) > _ROTATION_TOLERANCE:
        raise BadInput(
            f"the rotation in {what} is scaled by {scale:.4g}",
            "divide its left 3x3 block by that number",
        )
    if np.linalg.det(given) < 0:
        raise BadInput(f"{what} mirrors (its determinant is -1, a left-handed camera)", remedy)
    if np.abs(lengths - 1).max() < 1e-6:
        return given
    nearest: np.ndarray = left @ right
    return nearest
