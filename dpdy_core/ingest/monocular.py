"""Depth of single images by a transformers depth-estimation model."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from dpdy_core.errors import JobFailed
from dpdy_core.ingest.align import DepthKind

_METRIC_MODELS = ("zoedepth", "depth_pro", "glpn")  # these predict metres whatever their config says


class DepthModel:
    """A pretrained model from a local folder or the hub. Raises JobFailed if it cannot be loaded."""

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            self.processor = AutoImageProcessor.from_pretrained(name)
            self.model = AutoModelForDepthEstimation.from_pretrained(name, use_safetensors=True).to(device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise JobFailed(
                f"the depth model {name!r} cannot be loaded: {str(error).splitlines()[0]}",
                "set depth.model to a folder with config.json, preprocessor_config.json and model.safetensors, "
                "or to a hub id that this machine can reach",
            ) from error
        self.device = device

    @property
    def kind(self) -> DepthKind:
        """What the numbers mean: most such models give relative disparity, large = near."""
        config = self.model.config
        if config.model_type in _METRIC_MODELS or getattr(config, "depth_estimation_type", "relative") == "metric":
            return "metric"
        return "relative_disparity"

    @torch.no_grad()
    def predict(self, images: list[np.ndarray], check: Callable[[int, int], None]) -> list[np.ndarray]:
        """(H, W) float32 for each (H, W, 3) uint8 RGB image; see `kind`. `check(done, total)` may raise to stop."""
        predictions = []
        for done, image in enumerate(images, start=1):
            inputs = self.processor(images=image, return_tensors="pt").to(self.device)
            values = self.model(**inputs).predicted_depth.float()
            values = values.reshape(1, 1, *values.shape[-2:])  # some models keep a channel
            values = F.interpolate(values, size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
            predictions.append(values.cpu().numpy())
            check(done, len(images))
        return predictions
