"""Does a sample show the object that its prompt names? A small classifier, trained on rendered scenes, is asked.

The denoising loss does not see shape: a lump of the right colour costs it little.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.phase import Phase, learning_rate
from dpdy_core.prior.rgbd import pack
from dpdy_core.synth.captions import describe, see
from dpdy_core.synth.dataset import REFINED
from dpdy_core.synth.objects import KINDS, TRAIN_KINDS
from dpdy_core.synth.shading import draw
from dpdy_core.synth.stills import Dice, draw_stills

WORDS = tuple(dict.fromkeys(kind.word for kind in TRAIN_KINDS))
LABELS = torch.tensor([WORDS.index(kind.word) if kind.word in WORDS else -1 for kind in KINDS])
SEEN = 0.05  # share of the image from which on an object isn't called small
SIDE = 64  # pixels that the classifier sees
FILL = 0.5  # share of the phase in which scenes are rendered
CAPACITY = 30_000  # scenes
BATCH = 64  # images at once where nothing is learnt
PEAK_RATE = 1e-3


@dataclass
class SingleObjects:
    """B scenes of one object each, not small, which their captions name."""

    rgbd: Tensor  # (B, 4, S, S) packed
    label: Tensor  # (B,) number in WORDS
    captions: list[str]


def draw_single_objects(
    scenes: int, size: int, generator: torch.Generator, device: torch.device | str
) -> SingleObjects:
    """Those of `scenes` random scenes of split "train" that show one object, not small: about a fifth."""
    stills = draw_stills(scenes, size, generator, "train")
    alone = ((stills.kind >= 0).sum(1) == 1).nonzero()[:, 0]
    chosen = alone.tolist()
    stills = type(stills)(
        stills.world[chosen],
        stills.cameras[alone],
        *(getattr(stills, name)[alone] for name in ("kind", "size", "height", "colour", "indoors", "sky")),
    )
    images = draw(stills.world.to(device), stills.cameras.to(device), REFINED)
    views = see(stills, images)
    captions = describe(stills, views, Dice(generator))
    label = LABELS[stills.kind[:, 0]]
    large = (views.share[:, 0] >= SEEN).tolist()
    named = [i for i, caption in enumerate(captions) if large[i] and WORDS[int(label[i])] in caption.split()]
    rgbd = pack(images.rgb, images.depth)[torch.tensor(named, dtype=torch.long, device=device)]
    return SingleObjects(rgbd, label[named].to(device), [captions[i] for i in named])


class ShapeClassifier(nn.Module):
    """Logits (B, words) of RGB-D images (B, 4, S, S) in [-1, 1]."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((4, *widths), widths, strict=False):
            for inside in (before, after):
                layers += [nn.Conv2d(inside, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], len(WORDS))

    def forward(self, rgbd: Tensor) -> Tensor:
        features = self.features(rgbd)
        return self.head(torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1))


def train_classifier(
    model: Ldm3d, phase: Phase, generator: torch.Generator, seed: int, chunk: int = 1024, batch_size: int = 128
) -> ShapeClassifier:
    """A classifier trained until `phase` ends, on new scenes and their reconstructions by the model's VAE, which are as
    soft as samples. `chunk` scenes are drawn at once, of which about a fifth are used."""
    device, cuda = model.device, model.device.type == "cuda"
    drawn = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = ShapeClassifier().to(device)
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=PEAK_RATE, weight_decay=1e-2, fused=cuda)
    images: list[Tensor] = []
    labels: list[Tensor] = []
    rgbd = label = torch.empty(0)
    began = 0.0
    for step in phase:
        if phase.ticking:
            phase.report(0)
        if not len(rgbd) and (step == 1 or (phase.progress < FILL and len(labels) * chunk < 5 * CAPACITY)):
            scenes = draw_single_objects(chunk, model.resolution, drawn, device)
            images += [_seen(scenes.rgbd), _seen(reconstructed(model, scenes.rgbd))]
            labels += [scenes.label, scenes.label]
            continue
        if not len(rgbd):
            rgbd, label, began = torch.cat(images), torch.cat(labels), phase.progress
        index = torch.randint(len(label), (batch_size,), generator=generator, device=device)
        shown = _altered(rgbd[index].float(), generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            logits = classifier(shown)
        loss = cross_entropy(logits.float(), label[index], label_smoothing=0.05)
        share = (phase.progress - began) / max(1 - began, 1e-6)
        optimiser.param_groups[0]["lr"] = learning_rate(PEAK_RATE, share)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return classifier.eval()


@torch.no_grad()
def reconstructed(model: Ldm3d, rgbd: Tensor) -> Tensor:
    """`rgbd` (B, 4, S, S) through the model's VAE, in [-1, 1]."""
    with torch.autocast(rgbd.device.type, torch.bfloat16, enabled=rgbd.device.type == "cuda"):
        parts = [model.decode(model.encode(some)).float().clamp(-1, 1) for some in rgbd.split(BATCH)]
    return torch.cat(parts) if parts else rgbd


@torch.no_grad()
def shape_score(
    model: Ldm3d, classifier: ShapeClassifier, per_word: int, seed: int, steps: int = 40, chunk: int = 1024
) -> dict[str, Any]:
    """Accuracies of `classifier` for `per_word` prompts of each word, captions of scenes drawn from `seed`: on the
    model's `samples` for them (guidance 3), on the `renders` themselves and on their `reconstructions`; beside chance,
    and the accuracy on the samples word by word."""
    real = balanced(model, per_word, seed, chunk)
    generator = torch.Generator(model.device).manual_seed(seed)
    drawn = []
    for i in range(0, len(real.captions), BATCH):
        rgb, depth = model.sample(real.captions[i : i + BATCH], steps, 3.0, generator)
        drawn.append(torch.cat([rgb, depth], dim=1) * 2 - 1)
    shown = {"samples": torch.cat(drawn), "renders": real.rgbd, "reconstructions": reconstructed(model, real.rgbd)}
    right = {name: predicted(classifier, rgbd) == real.label for name, rgbd in shown.items()}
    scores: dict[str, Any] = {name: round(float(hits.float().mean()), 3) for name, hits in right.items()}
    hits, label = right["samples"].float().cpu(), real.label.cpu()
    by_word = {word: round(float(hits[label == i].mean()), 3) for i, word in enumerate(WORDS) if (label == i).any()}
    return {**scores, "chance": round(1 / len(WORDS), 3), "prompts": len(label), "samples_by_word": by_word}


def balanced(model: Ldm3d, per_word: int, seed: int, chunk: int = 1024) -> SingleObjects:
    """`per_word` scenes of each word, at the model's resolution."""
    drawn = torch.Generator().manual_seed(seed)
    images: list[Tensor] = []
    labels: list[int] = []
    captions: list[str] = []
    while len(labels) < per_word * len(WORDS):
        scenes = draw_single_objects(chunk, model.resolution, drawn, model.device)
        for i, word in enumerate(scenes.label.tolist()):
            if labels.count(word) < per_word:
                images.append(scenes.rgbd[i])
                labels.append(word)
                captions.append(scenes.captions[i])
    return SingleObjects(torch.stack(images), torch.tensor(labels, device=model.device), captions)


@torch.no_grad()
def predicted(classifier: ShapeClassifier, rgbd: Tensor) -> Tensor:
    """(B,) numbers in WORDS."""
    return torch.cat([classifier(_seen(some).float()).argmax(1) for some in rgbd.split(BATCH)])


def _seen(rgbd: Tensor) -> Tensor:
    """At most SIDE pixels a side, in half precision."""
    return (adaptive_avg_pool2d(rgbd, SIDE) if rgbd.shape[-1] > SIDE else rgbd).half()


def _altered(rgbd: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrored at random, with other contrast, brightness and a little noise."""

    def uniform(low: float, high: float) -> Tensor:
        values = torch.rand((len(rgbd), 1, 1, 1), generator=generator, device=rgbd.device)
        return low + (high - low) * values

    rgbd = torch.where(uniform(0, 1) < 0.5, rgbd.flip(-1), rgbd)
    rgb = rgbd[:, :3] * uniform(0.6, 1.2) + uniform(-0.2, 0.2)
    noise = torch.randn(rgbd.shape, generator=generator, device=rgbd.device) * uniform(0, 0.05)
    return (torch.cat([rgb, rgbd[:, 3:]], dim=1) + noise).clamp(-1, 1)
