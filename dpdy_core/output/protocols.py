"""The ways in which runs are scored: our own, and those of the two benchmarks of the field. See docs/evaluation.md."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dpdy_core.config import RunConfig
from dpdy_core.output.covisibility import FLOW
from dpdy_core.output.metrics import box_ssim, lpips, mlpips, mpsnr, mssim, psnr, quantise, ssim, truncate

Metric = Callable[[Tensor, Tensor, Tensor | None], float | None]

DYCHECK_FACTOR = 2
NVIDIA_SIZE = (480, 270)


@dataclass(frozen=True)
class Protocol:
    """How renders become 8 bit, and which forms of the metrics are taken, of whole images and of regions."""

    name: str
    quantise: Callable[[Tensor], Tensor]
    psnr: Metric
    ssim: Metric
    lpips: Metric


PLAIN = Protocol("plain", quantise, psnr, ssim, lpips)
DYCHECK = Protocol("dycheck", truncate, mpsnr, mssim, mlpips)
NVIDIA = Protocol("nvidia", truncate, psnr, box_ssim, lpips)
PROTOCOLS = {protocol.name: protocol for protocol in (PLAIN, DYCHECK, NVIDIA)}


def longer_side(protocol: Protocol, document: dict[str, Any], config: RunConfig) -> int:
    """Of the views that are scored, in pixels: of the training, of the stored images (dycheck), or 480 (nvidia)."""
    if protocol is DYCHECK:
        return max(int(document["w"]), int(document["h"]))
    return max(NVIDIA_SIZE) if protocol is NVIDIA else config.scene.max_size


def deviations(
    protocol: Protocol, document: dict[str, Any], original: tuple[int, int] | None, size: tuple[int, int], found: int
) -> list[str]:
    """Why these scores cannot be set beside published ones of the protocol; always empty for our own.

    `original` is the capture's size before it was stored, if known, `size` that of the scored views, and `found` the
    number of covisible masks that had to be computed.
    """
    kind, reasons = document.get("source"), []
    if protocol is DYCHECK:
        factor = document.get("dycheck", {}).get("factor")
        if kind != "dycheck":
            reasons.append("the capture is not a DyCheck sequence: its own test views are scored")
        elif factor != DYCHECK_FACTOR:
            reasons.append(f"the sequence's images are of factor {factor}, not {DYCHECK_FACTOR}")
        if original is not None and original != size:
            reasons.append(
                f"images of {_times(original)} pixels are scored at {_times(size)}: raise ingest.max_size for a new run"
            )
        if found:
            reasons.append(
                f"{found} covisible masks were missing and made from {FLOW}, not from RAFT as the published are"
            )
    elif protocol is NVIDIA:
        if kind != "nvidia":
            reasons.append("the capture is not an NVIDIA dynamic scene: its own test views are scored")
        if size != NVIDIA_SIZE:
            reasons.append(f"views are scored at {_times(size)} pixels, not at {_times(NVIDIA_SIZE)}")
    return reasons


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
