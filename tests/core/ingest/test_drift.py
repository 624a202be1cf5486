import numpy as np

from dpdy_core.ingest.drift import unexplained
from dpdy_core.ingest.pinhole import Pinhole

WIDTH, HEIGHT, FOCAL = 12, 8, 100.0


def _camera(x: float) -> Pinhole:
    k = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return Pinhole(k, np.column_stack([np.eye(3), [-x, 0, 0]]))


def _left(steps: list[float], own: list[float], valid: np.ndarray | None = None) -> np.ndarray:
    """Of points 2 units away that move by `own` units along the path of a camera that moves by `steps`."""
    shift = FOCAL * (np.array(own) - np.array(steps)) / 2
    flows = np.zeros((len(steps), HEIGHT, WIDTH, 2), np.float32)
    flows[..., 0] = shift[:, None, None]
    known = np.ones(flows.shape[:3], bool) if valid is None else valid
    return unexplained(flows, known, _camera(0), [_camera(x) for x in steps])


def test_what_stands_still_is_explained_whatever_its_depth() -> None:
    assert _left([0.1, -0.1, 0.2, -0.2], [0, 0, 0, 0]).max() < 1e-3


def test_what_sways_along_the_path_of_the_camera_is_not() -> None:
    """A fundamental matrix allows every motion along its lines; several frames must agree on a depth."""
    left = _left([0.1, -0.1, 0.2, -0.2], [0.04, 0.04, 0.0, 0.0])
    assert left.min() > 1.5, "two pixels to two of the four"


def test_flows_that_failed_do_not_count() -> None:
    valid = np.ones((4, HEIGHT, WIDTH), bool)
    valid[:2] = False
    assert _left([0.1, -0.1, 0.2, -0.2], [0.04, 0.04, 0.0, 0.0], valid).max() < 1e-3


def test_behind_a_camera_that_stands_still_all_flow_is_motion() -> None:
    left = _left([0.0, 0.0, 0.0], [0.04, 0.04, 0.04])
    np.testing.assert_allclose(left, 2 * np.sqrt(3 / 2.5), rtol=1e-3)
