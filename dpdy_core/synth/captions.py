"""Captions in plain words of what a rendered scene shows, from the generator's own parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dpdy_core.synth.objects import KINDS, PAINTS
from dpdy_core.synth.palette import COLOUR_NAMES
from dpdy_core.synth.shading import Images
from dpdy_core.synth.stills import BACKGROUND_MATERIALS, MAX_OBJECTS, SKY_WORDS, Dice, Stills
from dpdy_core.synth.textures import TEXTURE_NAMES

SEEN = 0.004  # share of the image from which on an object is worth a word
COUNTED = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Views:
    """How the objects of B scenes lie in their images."""

    share: Tensor  # (B, K) of the pixels
    x: Tensor  # (B, K) mean of the pixels, 0 left .. 1 right
    depth: Tensor  # (B, K) mean planar depth, metres


def see(stills: Stills, images: Images) -> Views:
    """Where the objects of `stills` are in `images` (same scenes), on the CPU."""
    owner = stills.world.pieces.owner.to(images.place.device)
    shown = owner.gather(1, images.place.flatten(1).clamp_min(0))
    shown = torch.where(images.place.flatten(1) >= 0, shown, 0)
    size = images.place.shape[2]
    x = ((torch.arange(size, device=shown.device) + 0.5) / size).repeat(images.place.shape[1])
    depth = images.depth.flatten(1)
    columns = []
    for k in range(1, MAX_OBJECTS + 1):
        mask = (shown == k).float()
        count = mask.sum(1).clamp_min(1)
        columns.append(torch.stack([mask.mean(1), mask @ x / count, (mask * depth).sum(1) / count]))
    share, mean_x, mean_depth = torch.stack(columns, dim=-1).cpu()
    return Views(share, mean_x, mean_depth)


def describe(stills: Stills, views: Views, dice: Dice) -> list[str]:
    """One caption a scene. Every caption is true; how much it says is random."""
    batch = len(stills.kind)
    luck = dice.uniform(0, 1, batch, 4).tolist()
    numbers = {name: getattr(stills, name).tolist() for name in ("kind", "size", "height", "colour", "indoors", "sky")}
    texture = stills.world.materials.texture.tolist()
    share, x, depth = (getattr(views, name).tolist() for name in ("share", "x", "depth"))
    captions = []
    for b in range(batch):
        scene = _Scene(**{name: value[b] for name, value in numbers.items()}, texture=texture[b])
        seen = sorted((k for k in range(MAX_OBJECTS) if share[b][k] >= SEEN), key=lambda k: x[b][k])
        words = _things(scene, seen, share[b], x[b], depth[b], luck[b])
        setting = _setting(scene, luck[b])
        lead = ("a scene with ", "an image of ", "")[(luck[b][0] > 0.12) + (luck[b][0] > 0.2)]
        captions.append(f"{lead}{words} {setting}" if words and luck[b][1] > 0.06 else f"a scene {setting}")
    return captions


@dataclass(frozen=True)
class _Scene:
    """The parameters of one scene as plain numbers."""

    kind: list[int]
    size: list[int]
    height: list[int]
    colour: list[list[int]]
    indoors: bool
    sky: int
    texture: list[int]

    def paint(self, material: int) -> str:
        """The look of a material, as `red` or `red and white striped`."""
        first, second = (COLOUR_NAMES[c] for c in self.colour[material])
        name = TEXTURE_NAMES[self.texture[material]]
        return first if name == "plain" else f"{first} and {second} {name}"


def _things(
    scene: _Scene, seen: list[int], share: list[float], x: list[float], depth: list[float], luck: list[float]
) -> str:
    """The objects `seen`, from left to right."""
    if len(seen) == 1:
        k = seen[0]
        size = "small " if share[k] < 0.05 else "large " if share[k] > 0.2 else ""
        return f"{_object(scene, k, size)}{_side(x[k]) if luck[2] < 0.7 else ''}"
    if len(seen) > 3 and luck[2] < 0.3:
        return f"{COUNTED[len(seen)]} objects"
    sizes = ("small ", "", "large ")
    phrases = [_object(scene, k, sizes[scene.size[k]] if luck[3] < 0.7 else "") for k in seen]
    if len(seen) == 2 and abs(x[seen[0]] - x[seen[1]]) < 0.15:
        front, back = (0, 1) if depth[seen[0]] < depth[seen[1]] else (1, 0)
        return f"{phrases[front]} in front of {phrases[back]}"
    if len(seen) <= 3 and luck[2] < 0.7:
        phrases = [phrase + _side(x[k]) for phrase, k in zip(phrases, seen, strict=True)]
    return ", ".join(phrases[:-1]) + f" and {phrases[-1]}" if phrases else ""


def _object(scene: _Scene, k: int, size: str) -> str:
    kind = KINDS[scene.kind[k]]
    height = ("flat ", "", "tall ")[scene.height[k]] if kind.stretchable else ""
    paint = scene.paint(BACKGROUND_MATERIALS + PAINTS * k + kind.parts[0].paint)
    words = f"{size}{height}{paint} {kind.word}"
    return _a(words)


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _side(x: float) -> str:
    return " on the left" if x < 0.4 else " on the right" if x > 0.6 else " in the middle"


def _setting(scene: _Scene, luck: list[float]) -> str:
    """Room or ground, with more or less detail."""
    detail = luck[3]
    if scene.indoors:
        if detail < 0.35:
            return "in a room"
        if detail < 0.65:
            return f"in a room with {_a(scene.paint(0))} floor"
        return f"in a room with {_a(scene.paint(0))} floor and {scene.paint(2)} walls"
    sky = SKY_WORDS[scene.sky]
    above = "at sunset" if sky == "sunset" else f"under a {sky} sky"
    if detail < 0.35:
        return f"outdoors {above}"
    return f"on {scene.paint(0)} ground {above}" if detail < 0.7 else f"on {scene.paint(0)} ground outdoors"
