"""Things that can move of themselves (people, animals, vehicles) in single images, by a transformers model."""

import re

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from dpdy_core.errors import JobFailed
from dpdy_core.ingest.pieces import connected_pieces

# Names of such classes in the label sets of COCO, Pascal VOC, ADE20K and Cityscapes.
MOVABLE = {
    *("person", "people", "man", "woman", "child", "boy", "girl", "rider"),
    *("animal", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("car", "automobile", "truck", "lorry", "bus", "van", "train", "motorcycle", "motorbike", "minibike"),
    *("bicycle", "bike", "boat", "ship", "airplane", "aeroplane", "plane"),
}


class SegmentModel:
    """A pretrained model from a local folder or the hub. Raises JobFailed if it cannot be loaded or knows no mover."""

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            self.processor = AutoImageProcessor.from_pretrained(name)
            self.model = AutoModelForSemanticSegmentation.from_pretrained(name, use_safetensors=True).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise JobFailed(
                f"the segmentation model {name!r} cannot be loaded: {str(error).splitlines()[0]}",
                "set masks.model to a folder with config.json, preprocessor_config.json and model.safetensors, "
                "or to a hub id that this machine can reach",
            ) from error
        self.device = device
        self.movable = movable_classes(self.model.config.id2label)
        if not self.movable:
            raise JobFailed(
                f"the segmentation model {name!r} knows no people, animals or vehicles",
                "set masks.model to one trained on COCO, Pascal VOC, ADE20K or Cityscapes, with its class names",
            )

    @torch.no_grad()
    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W) int32 of an (H, W, 3) uint8 RGB image: 0 = cannot move, else the number of a connected piece."""
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        logits = self.model(**inputs).logits.float()
        classes = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)[0].argmax(0)
        return connected_pieces(classes.cpu().numpy(), self.movable)


def movable_classes(labels: dict[int, str]) -> list[int]:
    """The classes one of whose names (`person;individual`, `Traffic_Light`) is in MOVABLE."""
    names = {k: {part.strip() for part in re.split("[;,]", v.lower().replace("_", " "))} for k, v in labels.items()}
    return sorted(k for k, parts in names.items() if parts & MOVABLE)
