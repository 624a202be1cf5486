"""The phases of pretraining after the UNet: the motion adapter, and the judgement of what the model draws."""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from diffusers import MotionAdapter
from torch import Tensor

from dpdy_core.prior.consistency import consistency_scores
from dpdy_core.prior.ldm3d import Ldm3d
from dpdy_core.prior.motion import build_motion_adapter
from dpdy_core.prior.motion_training import ClipBuffer, motion_scores, train_motion_adapter
from dpdy_core.prior.phase import Phase
from dpdy_core.prior.shape_score import WORDS, shape_score, train_classifier
from dpdy_core.progress import Reporter

HELD_OUT_CLIPS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of these phases."""
    parser.add_argument("--motion-share", type=float, default=0.11, help="of the time, for the motion adapter; 0: none")
    parser.add_argument("--frames", type=int, default=8, help="of a clip")
    parser.add_argument("--clips", type=int, default=4096, help="clips held on the device")
    parser.add_argument("--clip-share", type=float, default=0.25, help="of the motion adapter's time, for its clips")
    parser.add_argument("--motion-batch", type=int, default=32, help="clips a step; a fourth at the whole resolution")
    parser.add_argument("--motion-learning-rate", type=float, default=5e-4)
    parser.add_argument("--judge-share", type=float, default=0.04, help="of the time, for the shape score; 0: none")
    parser.add_argument("--judged", type=int, default=128, help="samples of each kind that are judged")


def train_motion(
    model: Ldm3d,
    adapter: MotionAdapter | None,
    options: argparse.Namespace,
    deadline: float,
    reporter: Reporter,
    generator: torch.Generator,
    publish: Callable[[MotionAdapter, dict[str, float], bool], None],
) -> None:
    """Train `adapter`, or a new one, for the frozen `model` until `deadline` (`time.monotonic`).

    `publish(average, figures, finished)` is called at every tick, and at the end with the scores.
    """
    frames, chunk = options.frames, max(1, options.chunk // options.frames)
    now = time.monotonic()
    clips = ClipBuffer(model, options.clips, frames, chunk, "train", options.seed + 2)
    phase = Phase("clips", now + options.clip_share * max(deadline - now, 0), reporter)
    for _ in phase:
        clips.renew()
        if phase.ticking:
            phase.report(chunk)
        if clips.made >= clips.capacity:
            break
    filled = phase.done(clips=clips.made)
    held_out = ClipBuffer(model, min(HELD_OUT_CLIPS, options.clips), frames, chunk, "held-out", options.seed + 1)
    while held_out.made < held_out.capacity:
        held_out.renew()

    live = adapter or build_motion_adapter(model.unet, 2 * frames, options.seed).to(model.device)
    averaged = deepcopy(live).eval().requires_grad_(False)
    # every later tick makes one chunk: at most a twelfth of the time goes there
    phase = Phase("motion", deadline, reporter, max(2.0, 12 * filled["seconds"] / filled["steps"]))
    loss = train_motion_adapter(
        model,
        live,
        averaged,
        clips,
        phase,
        generator,
        options.motion_batch,
        options.motion_learning_rate,
        lambda step, loss: publish(averaged, {"steps": step, "loss": loss}, False),
        options.graphs,
    )
    figures = {"loss": loss, "clips": clips.made, "parameters": sum(p.numel() for p in averaged.parameters())}
    publish(averaged, figures, True)
    scores = motion_scores(model, averaged, held_out, clips.captions[:3])
    phase.report(options.motion_batch, **scores)
    publish(averaged, phase.done(**figures, **scores), True)


def judge(
    model: Ldm3d, rgbd: Tensor, captions: list[str], options: argparse.Namespace, deadline: float, reporter: Reporter
) -> dict[str, Any]:
    """Figures: whether samples show what they should, and whether their depth belongs to their colour, as in scenes
    `rgbd` (B, 4, S, S) with `captions`. The classifier is trained until `deadline`."""
    consistency = consistency_scores(model, rgbd, captions)
    phase = Phase("shapes", deadline, reporter)
    generator = torch.Generator(model.device).manual_seed(options.seed)
    chunk = max(64, 4 * options.chunk)
    classifier = train_classifier(model, phase, generator, options.seed + 3, chunk)
    score = shape_score(model, classifier, max(1, options.judged // len(WORDS)), options.seed + 4, chunk=chunk)
    phase.report(0, right=score["samples"], right_of_renders=score["renders"])
    return {"consistency": consistency, "shape_score": {**score, **phase.done()}}
