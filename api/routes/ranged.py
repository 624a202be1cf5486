"""Files as responses: conditions and one range (RFC 9110 sections 13 and 14), from a folder as from a bucket."""

import re
from email.utils import formatdate
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.errors import ServiceError
from api.jobs.files import Stored

LONGEST_RANGE = 200  # characters of a Range header: room for a handful of ranges


def gone(detail: str) -> ServiceError:
    """A file that was there."""
    return ServiceError(410, "gone", "The file is gone", detail, "its job or upload was deleted or has expired")


def send(
    request: Request,
    stored: Stored,
    media_type: str,
    headers: dict[str, str],
    etag: str | None = None,
    name: str | None = None,
    shown: bool = True,
) -> Response:
    """The whole file, the part that `Range` asks for (206), 304 for whom has it, or 416.

    One range is served; of several, as RFC 9110 allows, none: the answer is the whole file, and a long list of them is
    refused unread. `etag` is the strong tag of bytes that do not change. Raises 410 if the file goes away now.
    """
    headers = {**headers, "Accept-Ranges": "bytes", "Last-Modified": formatdate(stored.modified, usegmt=True)}
    if etag:
        headers["ETag"] = etag
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag in known or known == ["*"]:
            return Response(status_code=304, headers=headers)
    if name:
        headers["Content-Disposition"] = _disposition("inline" if shown else "attachment", name)
    start, stop, status = 0, stored.size, 200
    wanted = request.headers.get("range")
    if wanted and request.method == "GET" and _unchanged(request.headers.get("if-range"), headers):
        found = _parse(wanted, stored.size)
        if found:
            (start, stop), status = found, 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    try:
        content = stored.read(start, stop)
    except FileNotFoundError as error:
        raise gone("it was removed just now") from error
    return StreamingResponse(content, status, headers, media_type)


def _parse(header: str, size: int) -> tuple[int, int] | None:
    """[start, stop) of the only range; None if the header is to be ignored. Raises 416."""
    if len(header) > LONGEST_RANGE:
        raise _refused(size, f"the Range header has {len(header)} characters", "ask for one range")
    found = re.fullmatch(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", header, re.IGNORECASE)
    if found is None or found.group(1) == found.group(2) == "":
        return None
    first, last = found.groups()
    if first == "":
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None  # not a range at all
    if start >= stop:
        raise _refused(size, f"the file has {size} bytes", "ask for bytes inside it")
    return start, stop


def _refused(size: int, detail: str, remedy: str) -> ServiceError:
    headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
    return ServiceError(416, "range-not-satisfiable", "The range cannot be served", detail, remedy, headers=headers)


def _unchanged(condition: str | None, headers: dict[str, str]) -> bool:
    """Whether `If-Range` holds: the strong tag, or the exact date, that the file has now."""
    return condition is None or condition.strip() in (headers.get("ETag"), headers["Last-Modified"])


def _disposition(kind: str, name: str) -> str:
    encoded = quote(name)
    return f"{kind}; filename*=utf-8''{encoded}" if encoded != name else f'{kind}; filename="{name}"'
