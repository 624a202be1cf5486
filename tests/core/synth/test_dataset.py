"""Batches for the prior: ranges, determinism, true captions, disjoint splits."""

import re

import pytest
import torch

from dpdy_core.synth.captions import Views, describe, see
from dpdy_core.synth.dataset import sample_batch
from dpdy_core.synth.objects import HELD_OUT_KINDS, KINDS, TRAIN_KINDS
from dpdy_core.synth.palette import COLOUR_NAMES, HELD_OUT_TEXTURES, TRAIN_TEXTURES, display, linear
from dpdy_core.synth.plants import Stalk
from dpdy_core.synth.scenes import SCENES, build_scene
from dpdy_core.synth.shading import draw
from dpdy_core.synth.stills import Dice, Split, Stills, draw_stills
from dpdy_core.synth.textures import TEXTURE_NAMES

SIZE = 48


@pytest.fixture(scope="module", params=["train", "held-out"])
def stills(request: pytest.FixtureRequest) -> Stills:
    return draw_stills(256, SIZE, torch.Generator().manual_seed(1), request.param)


@pytest.fixture(scope="module")
def views(stills: Stills) -> Views:
    return see(stills, draw(stills.world, stills.cameras, 0.05))


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_batches_have_the_promised_ranges_and_follow_the_seed(split: Split) -> None:
    first, again, other = (sample_batch(6, SIZE, torch.Generator().manual_seed(s), "cpu", split) for s in (3, 3, 4))
    assert first.rgb.shape == (6, 3, SIZE, SIZE)
    assert first.depth.shape == (6, 1, SIZE, SIZE)
    assert len(first.captions) == 6
    assert first.rgb.min() >= 0
    assert first.rgb.max() <= 1
    assert (first.depth > 0.05).all()
    assert torch.isfinite(first.depth).all()
    assert torch.equal(first.rgb, again.rgb)
    assert torch.equal(first.depth, again.depth)
    assert first.captions == again.captions
    assert not torch.equal(first.rgb, other.rgb)
    assert first.rgb.flatten(1).std(1).min() > 0.02  # no empty picture


def words_of(names: tuple[str, ...]) -> set[str]:
    return set(names) - {"plain"}


def test_splits_share_no_kind_and_no_texture(stills: Stills) -> None:
    used = {KINDS[k].word for k in stills.kind.unique().tolist() if k >= 0}
    textures = {TEXTURE_NAMES[i] for i in stills.world.materials.texture.unique().tolist()}
    train = {kind.word for kind in TRAIN_KINDS}
    assert train.isdisjoint(kind.word for kind in HELD_OUT_KINDS)
    assert set(TRAIN_TEXTURES).isdisjoint(HELD_OUT_TEXTURES)
    if used & train:
        assert used == train
        assert textures == set(TRAIN_TEXTURES)
    else:
        assert used <= {kind.word for kind in HELD_OUT_KINDS}
        assert textures == set(HELD_OUT_TEXTURES)


def test_half_of_the_training_surfaces_are_plain_and_a_third_of_the_scenes_have_one_object() -> None:
    stills = draw_stills(512, SIZE, torch.Generator().manual_seed(0), "train")
    plain = stills.world.materials.texture == TEXTURE_NAMES.index("plain")
    assert 0.45 < plain.float().mean() < 0.55
    count = (stills.kind >= 0).sum(1)
    assert count.min() == 1
    assert count.max() == 6
    assert 0.25 < (count == 1).float().mean() < 0.4


@pytest.mark.parametrize("scene", SCENES)
def test_captures_use_only_what_the_prior_never_saw(scene: str) -> None:
    built = build_scene(scene, 7)
    assert {actor.word for actor in built.actors} <= {kind.word for kind in HELD_OUT_KINDS}
    assert {TEXTURE_NAMES[i] for i in built.materials.texture.unique().tolist()} <= set(HELD_OUT_TEXTURES)


def test_captions_name_only_what_is_there(stills: Stills, views: Views) -> None:
    captions = describe(stills, views, Dice(torch.Generator().manual_seed(2)))
    kinds = {kind.word for kind in KINDS}
    named = bare = 0
    for b, caption in enumerate(captions):
        words = re.findall("[a-z]+", caption)
        seen = [k for k in range(stills.kind.shape[1]) if views.share[b, k] >= 0.004]
        present = [KINDS[int(stills.kind[b, k])].word for k in seen]
        mentioned = [word for word in words if word in kinds]
        if mentioned:
            assert sorted(mentioned) == sorted(present)
            named += 1
        elif "objects" in words:
            assert words[words.index("objects") - 1] == ("four", "five", "six")[len(seen) - 4]
        else:
            assert caption.startswith("a scene ")
            bare += 1
        assert ("room" in words) == bool(stills.indoors[b])
        textures = {TEXTURE_NAMES[i] for i in stills.world.materials.texture[b].tolist()}
        assert set(words) & words_of(TEXTURE_NAMES) <= textures
        colours = {COLOUR_NAMES[i] for i in stills.colour[b].flatten().tolist()}
        assert set(words) & set(COLOUR_NAMES) <= colours | {"blue", "grey"}  # and the sky's
    assert named > 0.8 * len(captions)
    assert 0 < bare < 0.15 * len(captions)


def test_captions_tell_the_side_and_the_size_of_a_single_object(stills: Stills, views: Views) -> None:
    captions = describe(stills, views, Dice(torch.Generator().manual_seed(3)))
    sides = {"on the left": 0, "in the middle": 0, "on the right": 0}
    for b, caption in enumerate(captions):
        seen = (views.share[b] >= 0.004).nonzero()[:, 0].tolist()
        if len(seen) != 1:
            continue
        x, share = float(views.x[b, seen[0]]), float(views.share[b, seen[0]])
        expected = "on the left" if x < 0.4 else "on the right" if x > 0.6 else "in the middle"
        for side in sides:
            if side in caption:
                assert side == expected
                sides[side] += 1
        described = caption.partition(" in a room")[0].partition(" on ")[0].partition(" outdoors")[0]
        if "large" in described:
            assert share > 0.2
        if "small" in described:
            assert share < 0.05
    assert min(sides.values()) >= 2


def test_seen_objects_lie_where_their_pixels_are() -> None:
    stills = draw_stills(12, SIZE, torch.Generator().manual_seed(9), "train")
    images = draw(stills.world, stills.cameras, 0.05)
    views = see(stills, images)
    for b in range(12):
        owner = torch.where(images.place[b] >= 0, stills.world.pieces.owner[b][images.place[b].clamp_min(0)], 0)
        for k in range(stills.kind.shape[1]):
            _, columns = (owner == k + 1).nonzero(as_tuple=True)
            assert float(views.share[b, k]) == pytest.approx(len(columns) / SIZE**2, abs=1e-6)
            if len(columns):
                assert float(views.x[b, k]) == pytest.approx((float(columns.float().mean()) + 0.5) / SIZE, abs=1e-4)


def test_display_inverts_linear_below_the_shoulder() -> None:
    values = torch.linspace(0, 0.9, 50)
    torch.testing.assert_close(display(linear(values)), values, atol=1e-5, rtol=1e-4)
    bright = display(torch.linspace(0, 8, 200))
    assert (bright.diff() >= 0).all()
    assert bright[-1] <= 1


def test_stalks_bend_but_keep_their_length() -> None:
    stalk = Stalk((0.1, 0.2, 0.3), 0.9, 0.3, 1.0, 0.6, 1.5, 0.4)
    pieces = stalk.pieces(torch.linspace(0, 1, 7), 3, 10)
    links, half = pieces.position[:, :-1], pieces.size[:, :-1, 2]
    ends = links + pieces.rotation[:, :-1, :, 2] * half[..., None]
    starts = links - pieces.rotation[:, :-1, :, 2] * half[..., None]
    torch.testing.assert_close(ends[:, :-1], starts[:, 1:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(starts[:, 0], torch.tensor([[0.1, 0.2, 0.3]]).expand(7, 3), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close((ends - starts).norm(dim=-1).sum(1), torch.full((7,), 0.9))
    assert (ends[:, -1] - ends[0, -1]).norm(dim=-1).max() > 0.05
