"""The real engine behind the real embedded service, as a client sees it."""

from pathlib import Path

import httpx
import pytest

from api.client.client import DpdyClient
from dpdy_core.config import STAGES
from tests.e2e.engine import TINY, here
from worker.demo import service


def finished(client: DpdyClient, job_id: str) -> dict[str, object]:
    """The job once it is terminal."""
    while (job := client.job(job_id, wait=30))["state"] in ("queued", "running"):
        pass
    return job


@pytest.mark.slow
def test_a_capture_becomes_novel_views_over_rest(tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    assert here("synth", capture, "--frames", 10, "--size", "64x48") == 0
    with service(tmp_path) as url, DpdyClient(url) as client:
        upload = client.wait_upload(client.upload(capture)["id"])
        assert upload["state"] == "ready"
        assert upload["report"]["has_poses"]
        job = client.submit(upload["id"], "smoke", TINY, camera_paths=["stabilised"])
        done = finished(client, job["id"])
        assert done["state"] == "succeeded", done["problem"]
        assert [stage["name"] for stage in done["stages"]] == list(STAGES)
        assert all(stage["progress"] == 1 for stage in done["stages"])
        assert done["metrics"]["mean"]["psnr"] > 5

        events = list(client.events(job["id"]))
        ids = [int(event["id"]) for event in events]
        assert ids == sorted(set(ids))
        assert events[-1]["data"]["state"] == "succeeded"
        artifacts = {entry["path"]: entry for entry in client.artifacts(job["id"])}
        assert {"renders/stabilised.mp4", "renders/stabilised_depth.mp4", "report.html"} <= artifacts.keys()
        assert any(path.startswith("renders/previews/scene_") for path in artifacts)
        video = artifacts["renders/stabilised.mp4"]
        part = httpx.get(url + f"/v1/jobs/{job['id']}/artifacts/{video['path']}", headers={"Range": "bytes=4-7"})
        assert part.status_code == 206
        assert part.content == b"ftyp"

        another = finished(client, client.render(job["id"], "bullet-time", fps=4, width=32)["id"])
        assert another["state"] == "succeeded", another["problem"]
        assert any(entry["path"].endswith("bullet-time.mp4") for entry in client.artifacts(str(another["id"])))


@pytest.mark.slow
def test_a_broken_video_is_rejected_and_leaves_no_job(tmp_path: Path) -> None:
    broken = tmp_path / "notes.mp4"
    broken.write_text("this is not a video\n" * 50)
    with service(tmp_path) as url, DpdyClient(url) as client:
        upload = httpx.post(f"{url}/v1/uploads", params={"filename": "notes.mp4"}, content=broken.read_bytes()).json()
        while (state := client.get_upload(upload["id"]))["state"] in ("receiving", "checking"):
            pass
        assert state["state"] == "rejected"
        assert "video" in state["problem"]["detail"]
        refused = httpx.post(f"{url}/v1/jobs", json={"upload_id": upload["id"], "preset": "smoke"})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.list()["items"] == []
