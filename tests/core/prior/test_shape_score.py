"""The shape score: what it is trained on, what it asks for, and how it counts."""

import pytest
import torch

from dpdy_core.prior import shape_score as module
from dpdy_core.prior.shape_score import (
    WORDS,
    ShapeClassifier,
    SingleObjects,
    balanced,
    draw_single_objects,
    predicted,
    shape_score,
    train_classifier,
)
from dpdy_core.synth.objects import TRAIN_KINDS


def test_single_objects_are_named_by_their_captions_and_large_enough():
    scenes = draw_single_objects(96, 32, torch.Generator().manual_seed(0), "cpu")
    assert 8 < len(scenes.label) < 40
    assert scenes.rgbd.shape == (len(scenes.label), 4, 32, 32)
    assert {kind.word for kind in TRAIN_KINDS} == set(WORDS)
    for word, caption in zip(scenes.label.tolist(), scenes.captions, strict=True):
        assert WORDS[word] in caption.split()
        assert not any(other in caption.split() for other in WORDS if other != WORDS[word])
        assert "small" not in caption
    again = draw_single_objects(96, 32, torch.Generator().manual_seed(0), "cpu")
    assert torch.equal(scenes.rgbd, again.rgbd)


def test_balanced_prompts_name_every_word_equally_often(toy):
    scenes = balanced(toy, 2, seed=1, chunk=128)
    assert scenes.label.bincount().tolist() == [2] * len(WORDS)
    assert len(scenes.captions) == len(scenes.rgbd) == 2 * len(WORDS)


class Steps:
    """A phase of a fixed number of steps."""

    ticking = False

    def __init__(self, count):
        self.count, self.progress = count, 0.0

    def __iter__(self):
        for step in range(1, self.count + 1):
            self.progress = step / self.count
            yield step


def test_a_classifier_learns_what_is_easy(toy, monkeypatch):
    """Scenes that are bright in the channel of their word."""

    def colours(count, size, *_):
        label = torch.arange(count) % 3
        marked = torch.nn.functional.one_hot(label, 4)[:, :, None, None] * 1.6 - 0.8
        return SingleObjects(marked.expand(-1, -1, size, size), label, [""] * count)

    monkeypatch.setattr(module, "draw_single_objects", colours)
    monkeypatch.setattr(module, "reconstructed", lambda _, rgbd: rgbd)
    classifier = train_classifier(toy, Steps(60), torch.Generator().manual_seed(0), 0, chunk=12, batch_size=12)
    scenes = colours(9, 32)
    assert torch.equal(predicted(classifier, scenes.rgbd), scenes.label)


def test_score_counts_hits_of_samples_renders_and_reconstructions(toy, monkeypatch):
    """A classifier that reads the word off the first pixel; a model that always draws the second word."""
    label = torch.arange(len(WORDS))
    marked = (label.float() / 10)[:, None, None, None].expand(-1, 4, 32, 32)
    monkeypatch.setattr(module, "balanced", lambda *_: SingleObjects(marked, label, [f"a {word}" for word in WORDS]))
    monkeypatch.setattr(module, "reconstructed", lambda _, rgbd: torch.full_like(rgbd, 0.2))
    drawn = torch.full((len(WORDS), 4, 32, 32), (0.1 + 1) / 2)
    monkeypatch.setattr(toy, "sample", lambda *_: (drawn[:, :3], drawn[:, 3:]))

    class Reader(ShapeClassifier):
        def forward(self, rgbd):
            return torch.nn.functional.one_hot((rgbd[:, 0, 0, 0] * 10).round().long(), len(WORDS)).float()

    score = shape_score(toy, Reader(), 1, 0)
    assert score["renders"] == 1
    assert score["samples"] == score["reconstructions"] == score["chance"] == pytest.approx(1 / len(WORDS), abs=1e-3)
    assert score["samples_by_word"] == {word: float(i == 1) for i, word in enumerate(WORDS)}
    assert score["prompts"] == len(WORDS)


def test_classifier_takes_large_images_and_small_ones():
    classifier = ShapeClassifier((4, 8)).eval()
    images = torch.rand((70, 4, 128, 128), generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert predicted(classifier, images).shape == (70,)
    pooled = torch.nn.functional.avg_pool2d(images, 2)
    assert torch.equal(predicted(classifier, images[:5]), predicted(classifier, pooled[:5]))
