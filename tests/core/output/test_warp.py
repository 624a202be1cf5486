"""Warping by depth against scenes whose warped picture is known in closed form, in float64."""

import torch

from dpdy_core.geometry.cameras import Cameras, look_at, pixel_centres
from dpdy_core.output.warp import filled, warp

WIDTH, HEIGHT, FOCAL, WALL = 32, 24, 30.0, 4.0


def cameras(*centres: tuple[float, float, float], turned: bool = False) -> Cameras:
    """Cameras before the wall z = -WALL; `turned` ones look at one point of it, the others straight at it."""
    centre = torch.tensor(centres, dtype=torch.float64)
    target = torch.tensor([0.1, -0.2, -WALL], dtype=torch.float64) if turned else centre - torch.eye(3).double()[2]
    return Cameras(
        camera_to_world=look_at(centre, target.expand_as(centre), torch.tensor([0.0, 1.0, 0.0]).double()),
        focal=torch.full((len(centre), 2), FOCAL, dtype=torch.float64),
        principal=torch.tensor([[WIDTH / 2, HEIGHT / 2]], dtype=torch.float64).expand(len(centre), 2),
        width=WIDTH,
        height=HEIGHT,
    )


def wall(camera: Cameras, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours (H, W, 3), linear in the place on the wall, and planar depth (H, W)."""
    origins, directions = camera.image_rays(index)
    depth = (-WALL - origins[..., 2]) / directions[..., 2]
    points = origins + depth[..., None] * directions
    return torch.stack([points[..., 0] + 3, points[..., 1] + 3, points[..., 0] - points[..., 1] + 4], -1) / 8, depth


EVERYTHING = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)


def test_a_whole_pixel_shift_is_exact() -> None:
    """A sideways step of three pixels of disparity before a wall moves the picture by three pixels, to the bit."""
    pair = cameras((0, 0, 0), (3 * WALL / FOCAL, 0, 0))
    image, depth = wall(pair, 0)
    picture, hit = warp(image, depth, EVERYTHING, pair[0], pair, 1, EVERYTHING)
    assert torch.allclose(picture[:, :-3], image[:, 3:], atol=1e-12)
    assert hit[:, :-3].all()
    assert not hit[:, -3:].any()
    assert picture[:, -3:].abs().max() == 0


def test_a_turned_camera_sees_the_plane_where_it_is() -> None:
    """Colours are linear on the wall, so the mean of the points in a pixel is off by less than a pixel's slope."""
    pair = cameras((0, 0, 0), (0.6, 0.3, -0.4), turned=True)
    image, depth = wall(pair, 0)
    truth, _ = wall(pair, 1)
    picture, hit = warp(image, depth, EVERYTHING, pair[0], pair, 1, EVERYTHING)
    slope = 1.5 * WALL / FOCAL / 8 * 2
    assert hit.float().mean() > 0.7
    assert (picture - truth)[hit].abs().max() < slope
    assert (picture - truth)[hit].mean().abs() < slope / 20  # no drift to any side
    # no cracks: a pixel whose ray meets the wall well inside the first picture is hit
    origins, directions = pair.image_rays(1)
    points = origins + ((-WALL - origins[..., 2]) / directions[..., 2])[..., None] * directions
    pixels, _ = pair.project(points.reshape(-1, 3), torch.zeros(HEIGHT * WIDTH, dtype=torch.long))
    size = torch.tensor([WIDTH, HEIGHT])
    assert hit.flatten()[((pixels > 1) & (pixels < size - 1)).all(-1)].all()


def test_the_nearest_surface_wins_and_masks_hold() -> None:
    pair = cameras((0, 0, 0), (0, 0, 0))
    image, depth = wall(pair, 0)
    near = depth.clone()
    near[:, ::2] = 1.0  # seen from itself every column stays in place
    picture, hit = warp(image, near, EVERYTHING, pair[0], pair, 1, EVERYTHING)
    assert torch.allclose(picture, image)
    assert hit.all()
    side = cameras((0, 0, 0), (1 / FOCAL, 0, 0))  # one pixel at depth 1, a quarter at the wall
    picture, _ = warp(image, near, EVERYTHING, side[0], side, 1, EVERYTHING)
    assert torch.allclose(picture[:, 1:-1:2], image[:, 2::2])  # the near columns cover what they moved over
    known, wanted = EVERYTHING.clone(), EVERYTHING.clone()
    known[:5], wanted[:, :7] = False, False
    depth[10] = 0  # no depth, no point
    _, hit = warp(image, depth, known, pair[0], pair, 1, wanted)
    expected = known & wanted
    expected[10] = False
    assert torch.equal(hit, expected)


def test_holes_take_the_nearest_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(HEIGHT, WIDTH, 3, generator=generator)
    hit = torch.rand(HEIGHT, WIDTH, generator=generator) < 0.1
    places = pixel_centres(WIDTH, HEIGHT).reshape(-1, 2)
    full = filled(picture, hit).flatten(0, 1)
    distances = torch.cdist(places, places[hit.flatten()])
    known = picture.flatten(0, 1)[hit.flatten()]
    for pixel in range(0, WIDTH * HEIGHT, 7):
        candidates = known[distances[pixel] <= distances[pixel].min() + 1e-4]
        assert (candidates == full[pixel]).all(-1).any()
    assert torch.equal(filled(picture, torch.zeros_like(hit)), picture)
