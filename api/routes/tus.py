"""Resumable uploads by tus 1.0: creation, creation-with-upload, checksum, expiration, termination."""

import base64
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.db.models import Upload
from api.deps import Service, ServiceDep
from api.errors import ServiceError, invalid
from api.jobs.receiving import empty, too_large
from api.jobs.removal import remove_stale_parts, remove_upload
from api.jobs.resumable import Checksum, Resumable, too_long, wrong_offset
from api.jobs.uploads import clean_filename
from api.routes.tus_protocol import PREFIX, VERSION, check_version

router = APIRouter(prefix=PREFIX, tags=["uploads"])

EXTENSIONS = ("creation", "creation-with-upload", "checksum", "expiration", "termination")
CHECKSUMS = {"sha1": 20, "sha256": 32, "md5": 16}  # bytes of each
CHUNK_TYPE = "application/offset+octet-stream"
BODY = {"requestBody": {"content": {CHUNK_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}
LARGEST = 2**63 - 1  # of a column


def _resumable(service: ServiceDep) -> Resumable:
    settings = service.settings
    return Resumable(service.sessions, service.files, settings.upload_part_hours, settings.upload_ttl_hours)


ResumableDep = Annotated[Resumable, Depends(_resumable)]
VERSIONED = [Depends(check_version)]
UploadChecksum = Annotated[str | None, Header(description="ALGORITHM BASE64 of the body")]


@router.options("", status_code=204, summary="What this server speaks of tus")
@router.options("/{upload_id}", status_code=204, include_in_schema=False)
def options(service: ServiceDep) -> Response:
    """Version, extensions, checksum algorithms and the largest upload, as headers."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        "Tus-Max-Size": str(service.settings.max_upload_bytes),
    }
    return Response(status_code=204, headers=headers)


@router.post("", status_code=201, dependencies=VERSIONED, summary="Begin a resumable upload", openapi_extra=BODY)
async def create(
    request: Request,
    service: ServiceDep,
    uploads: ResumableDep,
    upload_length: Annotated[str | None, Header(description="bytes of the whole file")] = None,
    upload_metadata: Annotated[str, Header(description="`filename`, and `sha256` to have it compared; base64")] = "",
    upload_checksum: UploadChecksum = None,
) -> Response:
    """`Location` takes the bytes by PATCH; its last part is the upload's id. A body is taken as the first bytes."""
    size = _number("Upload-Length", upload_length)
    limit = service.settings.max_upload_bytes
    if size > limit:
        raise too_large(limit)
    if size == 0:
        raise empty()
    metadata = _metadata(upload_metadata)
    name = clean_filename(metadata.get("filename") or metadata.get("name") or "upload")
    with_body = request.headers.get("content-type") == CHUNK_TYPE
    checksum = _checksum(upload_checksum) if with_body else None
    await run_in_threadpool(service.files.check_space, size)
    await run_in_threadpool(remove_stale_parts, service.sessions, service.files, service.settings.upload_part_hours)
    upload = await run_in_threadpool(uploads.create, name, size, _sha256(metadata), upload_metadata)
    headers = {"Location": f"{PREFIX}/{upload.id}"}
    if with_body:
        headers |= await _append(request, service, uploads, upload, 0, checksum)
    return Response(status_code=201, headers={"Upload-Expires": _http_date(upload.expires_at)} | headers)


@router.head("/{upload_id}", dependencies=VERSIONED, summary="Where a resumable upload goes on")
def head(upload_id: str, service: ServiceDep, uploads: ResumableDep) -> Response:
    """`Upload-Offset` of `Upload-Length` bytes are stored."""
    upload = uploads.find(upload_id)
    offset = uploads.offset(upload)
    headers = {"Upload-Offset": str(offset), "Upload-Length": str(upload.size), "Cache-Control": "no-store"}
    if upload.tus_metadata:
        headers["Upload-Metadata"] = upload.tus_metadata
    if upload.state == "receiving":
        headers["Upload-Expires"] = _http_date(upload.expires_at)
        _complete(service, uploads, upload, offset)  # a process that was killed may have missed it
    return Response(headers=headers)


@router.patch(
    "/{upload_id}", status_code=204, dependencies=VERSIONED, summary="Go on with a resumable upload", openapi_extra=BODY
)
async def patch(
    upload_id: str,
    request: Request,
    service: ServiceDep,
    uploads: ResumableDep,
    upload_offset: Annotated[str | None, Header(description="where the body belongs")] = None,
    upload_checksum: UploadChecksum = None,
) -> Response:
    """The answer comes when the bytes are stored. After the last ones the upload is `checking`."""
    if request.headers.get("content-type") != CHUNK_TYPE:
        detail = f"the body has the type {request.headers.get('content-type')}"
        raise ServiceError(415, "unsupported-media-type", "Another media type", detail, f"send {CHUNK_TYPE}")
    offset, checksum = _number("Upload-Offset", upload_offset), _checksum(upload_checksum)
    upload = await run_in_threadpool(uploads.find, upload_id)
    headers = await _append(request, service, uploads, upload, offset, checksum)
    return Response(status_code=204, headers=headers)


@router.delete("/{upload_id}", status_code=204, dependencies=VERSIONED, summary="Delete a resumable upload")
def terminate(upload_id: str, service: ServiceDep, uploads: ResumableDep) -> Response:
    """At any time, also while it is sent; refused with 409 while a job waits or runs that reads it."""
    uploads.find(upload_id)
    remove_upload(service.sessions, service.files, upload_id)
    return Response(status_code=204)


async def _append(
    request: Request, service: Service, uploads: Resumable, upload: Upload, offset: int, checksum: Checksum | None
) -> dict[str, str]:
    """Store the body; the headers that tell of it."""
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdecimal() else 0
    if upload.state == "receiving" and offset + announced > upload.size:
        raise too_long(upload)
    await run_in_threadpool(service.files.check_space, announced)
    if upload.state != "receiving" and offset == upload.size and length == "0":  # the last answer was lost
        return {"Upload-Offset": str(offset)}
    if upload.state != "receiving":
        raise wrong_offset(upload.id, upload.size)
    offset, upload = await uploads.append(upload, offset, request.stream(), checksum)
    await run_in_threadpool(_complete, service, uploads, upload, offset)
    return {"Upload-Offset": str(offset), "Upload-Expires": _http_date(upload.expires_at)}


def _complete(service: Service, uploads: Resumable, upload: Upload, offset: int) -> None:
    if offset == upload.size and uploads.complete(upload):
        service.checker.submit(upload.id)


def _number(name: str, value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdecimal()) or int(value[:20]) > LARGEST:
        raise _bad_header(name, "a number of bytes is expected")
    return int(value[:20])


def _metadata(header: str) -> dict[str, str]:
    """Keys and decoded values of `Upload-Metadata`."""
    found: dict[str, str] = {}
    for pair in filter(None, header.split(",")):
        key, _, value = pair.strip().partition(" ")
        try:
            text = base64.b64decode(value, validate=True).decode(errors="replace")
        except ValueError:
            raise _bad_header("Upload-Metadata", f"the value of {key!r} is no base64") from None
        if not key or key in found:
            raise _bad_header("Upload-Metadata", f"the key {key!r} is empty or there twice")
        found[key] = text
    return found


def _sha256(metadata: dict[str, str]) -> str | None:
    given = metadata.get("sha256", "").lower()
    if given and (len(given) != 64 or set(given) - set("0123456789abcdef")):
        raise invalid([{"field": "Upload-Metadata.sha256", "detail": "64 hexadecimal digits are expected"}])
    return given or None


def _checksum(header: str | None) -> Checksum | None:
    if header is None:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in CHECKSUMS:
        raise _bad_header("Upload-Checksum", f"the algorithms are {', '.join(CHECKSUMS)}")
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != CHECKSUMS[algorithm]:
        raise _bad_header("Upload-Checksum", f"{algorithm} has {CHECKSUMS[algorithm]} bytes, in base64")
    return Checksum(algorithm, digest)


def _bad_header(name: str, detail: str) -> ServiceError:
    return ServiceError(400, "bad-header", f"The header {name} cannot be read", detail)


def _http_date(time: datetime) -> str:
    return format_datetime(time, usegmt=True)
