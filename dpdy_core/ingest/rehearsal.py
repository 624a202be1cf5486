"""The first stages at small size, in a scratch run: what `dpdy inspect --cameras` tells beyond a first look."""

from pathlib import Path
from typing import Any

from dpdy_core.config import CamerasConfig, DepthConfig, IngestConfig, MasksConfig, RunConfig
from dpdy_core.errors import CamerasFailed
from dpdy_core.ingest.cameras import solve_cameras
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.depth import estimate_depth
from dpdy_core.ingest.masks import estimate_masks
from dpdy_core.ingest.verdict import judge
from dpdy_core.progress import Reporter
from dpdy_core.rundir import RunDir, read_json

SMALL = RunConfig(
    preset="smoke",
    ingest=IngestConfig(max_frames=32, max_size=640, holdout_every=0),
    masks=MasksConfig(max_size=320),
    cameras=CamerasConfig(max_size=480),
    depth=DepthConfig(max_size=160, planes=32, neighbours=2),
)


def rehearse(capture: Path, scratch: Path, depth: bool, reporter: Reporter) -> dict[str, Any]:
    """The capture report with `cameras`, from ingest, masks, cameras and, if wanted, depth in the folder `scratch`.

    Where no cameras are found, `cameras` says why and the verdict is `will fail`. Raises BadInput as ingest does.
    """
    run = RunDir(scratch)
    run.write_config(SMALL, capture.resolve(), {})
    stages = (("ingest", ingest_capture), ("masks", estimate_masks), ("cameras", solve_cameras))
    try:
        for name, stage in (*stages, *((("depth", estimate_depth),) if depth else ())):
            reporter.start(name)
            stage(run, SMALL, reporter)
            reporter.done()
    except CamerasFailed as error:
        failed = {"registered_share": 0.0, "problem": error.detail, "remedy": error.remedy}
        return judge({**read_json(run.capture_report_file), "cameras": failed})
    report: dict[str, Any] = read_json(run.capture_report_file)
    return report
