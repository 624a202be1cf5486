"""What no method may fall short of: pictures made from the training frames without any scene."""

import torch
from torch import Tensor

from dpdy_core.geometry.cameras import Cameras
from dpdy_core.ingest.clip import Clip


def nearest_frame(train: Clip, cameras: Cameras, index: int, time: float) -> Tensor:
    """(H, W, 3) in [0, 1]: the training frame nearest to `time`, of equals the nearest camera, unmoved.

    Camera `index` of `cameras` has the image size of `train`.
    """
    gaps = (train.times - time).abs()
    nearest = gaps <= gaps.min() + 1e-6
    distances = (train.cameras.centres - cameras.centres[index]).norm(dim=-1)
    chosen = torch.where(nearest, distances, torch.full_like(distances, torch.inf)).argmin()
    return train.images[chosen].float() / 255
