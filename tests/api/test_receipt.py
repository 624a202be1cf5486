"""The receipt of a deletion: every file by what it is, hashed, also when the deletion broke off."""

import hashlib

import pytest

from api.jobs.files import Files
from api.jobs.removal import remove_job
from tests.harness import Harness
from worker.sweep import sweep

PLANTED = {  # path: kind
    "run/prior/unet/diffusion_pytorch_model.safetensors": "weights",
    "run/prior/text_encoder/pytorch_model.bin": "weights",
    "run/prior/checkpoints/00010.pt": "checkpoint",
    "run/prior/samples/1.jpg": "preview",
    "run/prior/model_index.json": "other",
    "run/scene/checkpoints/00020.safetensors": "checkpoint",
    "run/renders/previews/1.jpg": "preview",
    "run/renders/more.mp4": "render",
    "run/capture/rgb/0.png": "capture",
    "run/evaluation/metrics.json": "evaluation",
    "run/events.jsonl": "log",
    "run/nobody-knows": "other",
}


def planted(service: Harness) -> str:
    """A finished job whose folder holds one file of each kind; each has its path as content."""
    job_id: str = service.finished()["id"]
    for path in PLANTED:
        file = service.runner.files.job(job_id) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    return job_id


def test_every_file_is_named_by_kind_size_and_hash(service: Harness) -> None:
    job_id = planted(service)
    there = {
        path.relative_to(service.runner.files.job(job_id)).as_posix(): path.read_bytes()
        for path in service.runner.files.job(job_id).rglob("*")
        if path.is_file()
    }
    receipt = service.http.delete(f"/v1/jobs/{job_id}").json()["receipt"]
    listed = {entry["path"]: entry for entry in receipt["files"]}
    assert {path: (entry["size"], entry["sha256"]) for path, entry in listed.items()} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in there.items()
    }
    assert {path: listed[path]["kind"] for path in PLANTED} == PLANTED
    for kind, total in receipt["kinds"].items():
        sizes = [entry["size"] for entry in listed.values() if entry["kind"] == kind]
        assert total == {"count": len(sizes), "bytes": sum(sizes)}
    assert receipt["bytes"] == sum(map(len, there.values()))
    assert receipt["upload"]["sha256"] == hashlib.sha256(b"video").hexdigest()


def test_a_deletion_that_broke_off_is_finished_with_the_whole_list(
    service: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, files = planted(service), service.runner.files
    removed = files.job(job_id) / "run/prior/checkpoints/00010.pt"

    def one_file(*_: object) -> None:
        removed.unlink()
        raise OSError("the process died here")

    with monkeypatch.context() as broken:
        broken.setattr(Files, "remove_job", one_file)
        assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 500
    assert not removed.exists()
    assert service.http.get(f"/v1/jobs/{job_id}").json()["deleted_at"] is None
    sweep(service.sessions, service.runner.queue, files, service.settings)
    tombstone = service.http.get(f"/v1/jobs/{job_id}")
    assert tombstone.status_code == 410
    assert set(PLANTED) <= {entry["path"] for entry in tombstone.json()["receipt"]["files"]}
    assert not files.job(job_id).exists()
    assert not remove_job(service.sessions, files, job_id)
