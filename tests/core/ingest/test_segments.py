from pathlib import Path

import numpy as np
import pytest
import torch
from textured_room import SIZE, sideways, write_room
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from dpdy_core.errors import JobFailed
from dpdy_core.ingest.clip import read_mask, read_transforms
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.ingest.pieces import connected_pieces, whole_movers
from dpdy_core.ingest.segments import SegmentModel, movable_classes


def _tiny_model(folder: Path, labels: dict[int, str], always: int | None = None) -> None:
    """A random SegFormer in the layout of the published ones; `always` is the class that it sees everywhere."""
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(config)
    if always is not None:
        model.decode_head.classifier.bias.data[always] = 1e3
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def test_a_model_from_a_folder_finds_pieces_at_the_size_of_the_image(tmp_path: Path) -> None:
    _tiny_model(tmp_path, {0: "wall", 1: "person;individual", 2: "car"})
    model = SegmentModel(str(tmp_path), torch.device("cpu"))
    assert model.movable == [1, 2]
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    pieces = model.predict(image)
    assert pieces.shape == (48, 64)
    assert np.array_equal(pieces, model.predict(image))


def test_names_of_classes_that_can_move() -> None:
    labels = {0: "hot dog", 1: "Dog", 2: "car;auto;automobile", 3: "traffic_light", 4: "people, persons", 5: "carpet"}
    assert movable_classes(labels) == [1, 2, 4]


def test_a_thing_is_masked_whole_or_not_at_all() -> None:
    classes = np.zeros((40, 60), int)
    classes[5:25, 5:15], classes[5:25, 30:40], classes[0, 59] = 1, 1, 1
    pieces = connected_pieces(classes, [1])
    assert pieces.max() == 2, "a speck is no thing"
    seen = np.zeros((40, 60), bool)
    seen[5:15, 5:15] = True  # half of the first
    seen[5:7, 30:40] = True  # a tenth of the second
    seen[30:35, 20:25] = True  # what the model does not know
    expected = np.zeros((40, 60), bool)
    expected[5:25, 5:15] = expected[30:35, 20:25] = True
    assert np.array_equal(whole_movers(seen, pieces), expected)


def test_the_stage_takes_a_thing_that_fills_the_picture_for_static(tmp_path: Path) -> None:
    _tiny_model(tmp_path / "model", {0: "wall", 1: "person"}, always=1)
    room = write_room(tmp_path / "run", sideways(4, 0.6), mover=True, settings={"masks.model": str(tmp_path / "model")})
    room.reporter.start("masks")
    estimate_masks(room.run, room.config, room.reporter)
    frames = read_transforms(room.run.capture)["frames"]
    assert not any(read_mask(room.run.capture / f["motion_mask_path"], SIZE).any() for f in frames)
    assert not any("estimated_mask_path" in f for f in frames), "outlines of a model are not redrawn"


@pytest.mark.parametrize(
    ("labels", "message"), [(None, "cannot be loaded"), ({0: "wall", 1: "tree"}, "knows no people")]
)
def test_a_model_that_is_of_no_use_is_named(tmp_path: Path, labels: dict[int, str] | None, message: str) -> None:
    if labels:
        _tiny_model(tmp_path, labels)
    with pytest.raises(JobFailed, match=message):
        SegmentModel(str(tmp_path), torch.device("cpu"))
