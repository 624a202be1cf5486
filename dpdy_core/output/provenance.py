"""What scores were made of: enough to say whether two of them should be equal."""

from typing import Any

import torch

from dpdy_core.rundir import RunDir, config_hash
from dpdy_core.runtime import environment


def provenance(run: RunDir, device: torch.device) -> dict[str, Any]:
    """Hash of the run's settings, seed, hash of the input's bytes, and versions and device of this process.

    What the run was trained with is in its `config.json`.
    """
    config, _ = run.read_config()
    here = environment(device)
    return {
        "config_hash": config_hash(config),
        "seed": config.seed,
        "capture_hash": (run.stage_record("ingest") or {}).get("input_hash"),
        "versions": {"dpdy": here["dpdy"], "python": here["python"], **here["packages"]},
        "device": here["device"],
    }
