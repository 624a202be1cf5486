"""Uploads: the raw file as the body."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.db import queries
from api.deps import Service, ServiceDep
from api.errors import ServiceError, invalid, not_found
from api.jobs.files import new_id
from api.jobs.removal import remove_upload
from api.jobs.uploads import admit, receive, too_large
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

    The answer comes when all bytes are stored; the upload is then `checking`, and soon `ready` or `rejected`.
    """
    name = _clean(filename)
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
    try:
        received = await receive(request.stream(), files.uploads / f"{new_id('in')}.part", settings)
    except ClientDisconnect as error:
        raise ServiceError(400, "upload-broken", "The upload broke off", "the client went away") from error
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


def _clean(filename: str) -> str:
    """The name as text: its last part, without control characters."""
    last = re.split(r"[\\/]", filename)[-1].strip()
    cleaned = "".join(character for character in last if character.isprintable())[:255]
    if cleaned in ("", ".", ".."):
        raise invalid([{"field": "filename", "detail": "give the file's name, for example ?filename=video.mp4"}])
    return cleaned
