"""Uploads: the raw file as the body."""

import base64
import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from api.db import queries
from api.deps import Service, ServiceDep
from api.errors import ServiceError, invalid, not_found
from api.jobs.files import new_id
from api.jobs.receiving import receive, too_large
from api.jobs.removal import remove_upload
from api.jobs.uploads import admit, clean_filename
from api.quotas import check_uploads
from api.schemas import UploadOut

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "", status_code=201, summary="Upload a capture", operation_id="upload", response_model=UploadOut, openapi_extra=BODY
)
@router.put("", status_code=201, include_in_schema=False, response_model=UploadOut)
async def upload(
    request: Request,
    response: Response,
    service: ServiceDep,
    filename: Annotated[str, Query(min_length=1, max_length=1024, description="the file's own name")],
) -> UploadOut:
    """Stream a video or a zip to the server (`curl -T video.mp4 '.../v1/uploads?filename=video.mp4'`).

    The answer comes when all bytes are stored; the upload is then `checking`, and soon `ready` or `rejected`. With
    `Repr-Digest: sha-256=:BASE64:` bytes with another hash are refused. What must survive a broken connection goes to
    `/v1/uploads/tus`.
    """
    name = clean_filename(filename)
    settings, files = service.settings, service.files
    if request.headers.get("content-type", "").startswith("multipart/"):
        detail = "the body is a multipart form"
        raise ServiceError(
            415, "unsupported-media-type", "Send the file itself", detail, "use curl -T FILE, not curl -F"
        )
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else 0
    if announced > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)
    await run_in_threadpool(files.check_space, announced)
    await run_in_threadpool(_check_quota, service, announced)
    expected = _expected_digest(request.headers)
    received = await receive(request.stream(), files.part(new_id("upl")), settings, expected)
    row = await run_in_threadpool(admit, service.sessions, files, received, name, settings.upload_ttl_hours)
    service.checker.submit(row.id)
    response.headers["Location"] = f"/v1/uploads/{row.id}"
    return UploadOut.of(row)


@router.get("/{upload_id}", summary="State of an upload")
def get_upload(upload_id: str, service: ServiceDep) -> UploadOut:
    """`report` is the capture report; a rejected upload says why in `problem`."""
    with service.sessions() as session:
        row = queries.upload(session, upload_id)
    if row is None or row.deleted_at:
        raise not_found("upload", upload_id)
    return UploadOut.of(row)


@router.delete("/{upload_id}", status_code=204, summary="Delete an upload")
def delete_upload(upload_id: str, service: ServiceDep) -> None:
    """Refused with 409 while a job waits or runs that reads it."""
    remove_upload(service.sessions, service.files, upload_id)


def _check_quota(service: Service, announced: int) -> None:
    """Before the bytes come; what came is counted again."""
    with service.sessions() as session:
        check_uploads(session, max(announced, 1))


def _expected_digest(headers: Headers) -> bytes | None:
    """The SHA-256 of `Repr-Digest` or `Content-Digest` (RFC 9530), if there is one."""
    given = headers.get("repr-digest") or headers.get("content-digest") or ""
    found = re.search(r"(?:^|[,\s])sha-256=:([^:]*):", given)
    if found is None:
        return None
    try:
        digest = base64.b64decode(found[1], validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise invalid([{"field": "Repr-Digest", "detail": "sha-256=:BASE64 of 32 bytes: is expected"}])
    return digest
