"""What a job made: the list, single files with ranges, and all of it as a zip."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from api.db import queries
from api.db.models import Artifact
from api.deps import CallerDep, ServiceDep
from api.errors import ServiceError
from api.jobs import states
from api.jobs.archive import stream_zip
from api.jobs.files import Stored
from api.routes.jobs import existing
from api.routes.ranged import gone, send
from api.schemas import ArtifactList, ArtifactOut
from api.signing import SHARED

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])
shared = APIRouter(prefix=SHARED, tags=["artifacts"])

SHOWN = ("image/", "video/", "text/", "application/json")  # the rest is only for download
# a file is shown without the rights of this site, whatever is in it
SANDBOX = {
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; img-src 'self' data:;"
    " media-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "cross-origin",  # a report has no origin: what it shows is of another one
    "Cache-Control": "private, no-cache",
}


@router.get("/{job_id}/artifacts", summary="List artifacts")
def list_artifacts(job_id: str, service: ServiceDep, caller: CallerDep) -> ArtifactList:
    """Every file of the job; while it runs, the previews so far.

    To a caller with an API key each `url` opens without one, for a while (`link_seconds` in /v1/info).
    """
    with service.sessions() as session:
        existing(session, job_id)
        rows = queries.artifacts(session, job_id)

    def url(row: Artifact) -> str:
        whole = f"/v1/jobs/{job_id}/artifacts/{row.path}"
        if caller.keys_needed and row.media_type == "text/html":  # it has no origin, so that no cookie gets its videos
            return service.links.share(job_id, caller.tenant, row.path)
        return service.links.sign(whole, caller.tenant) if caller.bare else quote(whole)

    return ArtifactList(items=[ArtifactOut.of(row, url(row)) for row in rows])


@router.get("/{job_id}/artifacts.zip", summary="Download all artifacts", response_class=StreamingResponse)
def download_all(job_id: str, service: ServiceDep) -> StreamingResponse:
    """One zip of all files, made while it is sent."""
    with service.sessions() as session:
        job = existing(session, job_id)
        rows = queries.artifacts(session, job_id)

    def members() -> Iterator[tuple[str, Stored]]:
        for row in rows:
            if stored := service.files.artifact(row):
                yield row.path, stored
            elif job.state in states.TERMINAL:
                raise FileNotFoundError(f"{row.path} of job {job_id} was deleted during the download")

    headers = {"Content-Disposition": f'attachment; filename="{job_id}.zip"'}
    return StreamingResponse(stream_zip(members()), media_type="application/zip", headers=headers)


@router.get("/{job_id}/artifacts/{path:path}", summary="Download one artifact", response_class=Response)
@router.head("/{job_id}/artifacts/{path:path}", include_in_schema=False)
def download(
    job_id: str,
    path: str,
    request: Request,
    service: ServiceDep,
    as_file: Annotated[bool, Query(alias="download", description="save instead of show")] = False,
) -> Response:
    """One file, with `Range`, `ETag` and `If-Range`."""
    with service.sessions() as session:
        job = existing(session, job_id)
        row = queries.artifact(session, job_id, path)
    if row is None:
        raise ServiceError(404, "not-found", "There is no such artifact", f"job {job_id} has no file {path!r}")
    stored = service.files.artifact(row)
    if stored is None:
        raise gone(f"the file {path!r} of job {job_id} was there and is no more")
    final = row.object_key is not None or (job.state in states.TERMINAL and stored.size == row.size)
    etag = f'"{row.sha256}"' if final else None
    shown = row.media_type.startswith(SHOWN) and not as_file
    return send(request, stored, row.media_type, SANDBOX, etag, PurePosixPath(path).name, shown)


@shared.get("/{job_id}/{token}/{path:path}", summary="A file by a link", response_class=Response)
@shared.head("/{job_id}/{token}/{path:path}", include_in_schema=False)
def download_shared(job_id: str, token: str, path: str, request: Request, service: ServiceDep) -> Response:  # noqa: ARG001
    """As one artifact. The list of artifacts has such links to pages, which reach the files beside them, too."""
    return download(job_id, path, request, service)
