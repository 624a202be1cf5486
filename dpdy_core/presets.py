"""Presets are functions that return a complete config. Torch-free."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from dpdy_core.config import (
    CamerasConfig,
    DepthConfig,
    FieldsConfig,
    GridConfig,
    IngestConfig,
    MasksConfig,
    PriorConfig,
    RefinementConfig,
    RenderConfig,
    RunConfig,
    SamplingConfig,
    SceneConfig,
    SdsConfig,
    VideoSdsConfig,
)
from dpdy_core.errors import BadSettings
from dpdy_core.section import constant


def smoke() -> RunConfig:
    """Minutes on two CPU cores: proves the path and gives a rough scene."""
    return RunConfig(
        preset="smoke",
        ingest=IngestConfig(max_frames=32, max_size=640),
        masks=MasksConfig(max_size=320),
        cameras=CamerasConfig(max_size=640),
        depth=DepthConfig(max_size=160, planes=48, neighbours=4),
        prior=PriorConfig(
            finetune="lora",
            steps=40,
            batch_size=2,
            learning_rate=1e-3,
            rank=4,
            resolution=64,
            class_images=8,
            sampling_steps=10,
            validation_samples=1,
            checkpoint_seconds=20,
        ),
        scene=SceneConfig(
            steps=400,
            rays=1024,
            max_size=96,
            grid_learning_rate=0.03,
            mlp_learning_rate=0.01,
            fields=FieldsConfig(
                static_grid=GridConfig(levels=8, log2_table=15, max_resolution=256),
                dynamic_grid=GridConfig(levels=6, log2_table=14, max_resolution=128),
                proposal_grid=GridConfig(levels=4, log2_table=13, max_resolution=64),
                hidden=32,
            ),
            sampling=SamplingConfig(proposal=24, fine=16),
            sds=SdsConfig(every=8, resolution=32),
            refinement=RefinementConfig(enabled=False, every=25, views=2, pool=16, sampling_steps=3),
            checkpoint_seconds=20,
            preview_every=100,
        ),
        render=RenderConfig(fps=10, seconds=1.6),
    )


def fast() -> RunConfig:
    """Minutes on one modern GPU, with the bundled prior."""
    return RunConfig(preset="fast")


def paper() -> RunConfig:
    """The method at its own scale: LDM3D-4c at 512 px; hours on one large GPU."""
    return RunConfig(
        preset="paper",
        ingest=IngestConfig(max_frames=400, max_size=1280),
        depth=DepthConfig(max_size=512, planes=128, neighbours=8),
        prior=PriorConfig(
            model="Intel/ldm3d-4c",
            motion_adapter="guoyww/animatediff-motion-adapter-v1-5-2",
            finetune="lora",
            steps=5000,
            batch_size=4,
            learning_rate=5e-5,
            interpolation=1.0,
            resolution=512,
            class_images=200,
            checkpoint_seconds=300,
        ),
        scene=SceneConfig(
            steps=40000,
            rays=8192,
            max_size=960,
            sds=SdsConfig(resolution=256, every=2, weight=1e-4),
            refinement=RefinementConfig(every=1000, start="fill", strength=constant(0.3)),
            video_sds=VideoSdsConfig(enabled=True, weight=2e-5, frames=16, real=4, resolution=128),
            checkpoint_seconds=300,
            preview_every=2000,
        ),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {"smoke": smoke, "fast": fast, "paper": paper}


def resolve(preset: str, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """The preset's config with `settings` laid over it.

    Keys are dotted (`scene.steps`) or nested mappings. Raises BadSettings, naming each wrong field.
    """
    if preset not in PRESETS:
        raise BadSettings(f"there is no preset {preset!r}", f"use one of {', '.join(PRESETS)}")
    return changed(PRESETS[preset](), settings or {})


def changed(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """`config` with `settings` laid over it, as in `resolve`. Raises BadSettings, naming each wrong field."""
    merged = config.model_dump()
    for key, value in _flatten(settings):
        _place(merged, key, value)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise BadSettings(
            "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()),
            "GET /v1/presets or `dpdy run --help` lists every setting with its type and default",
        ) from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` strings as a dotted mapping; a value is read as JSON if it is JSON, else as text."""
    settings: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise BadSettings(f"{text!r} is not KEY=VALUE", "write for example --set scene.steps=2000")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _place(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for name in parents:
        child = tree.get(name)
        if not isinstance(child, dict):
            raise BadSettings(f"there is no setting {dotted!r}", "GET /v1/presets lists every setting")
        tree = child
    if leaf not in tree:
        raise BadSettings(f"there is no setting {dotted!r}", "GET /v1/presets lists every setting")
    tree[leaf] = value
