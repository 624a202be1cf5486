"""Every error as `application/problem+json` (RFC 9457), by one handler."""

import errno
import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.errors import ServiceError, field_errors, invalid
from api.headers import ALWAYS
from api.logs import named
from dpdy_core.errors import DpdyError

log = logging.getLogger(__name__)

BROKEN_STORAGE = (errno.EIO, errno.EROFS, errno.ENXIO, errno.ESTALE)
STATUS_TYPES = {
    400: ("bad-request", "The request cannot be read"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "The method is not allowed here"),
    408: ("body-stalled", "The body did not come in time"),
    413: ("body-too-large", "The body is too large"),
    415: ("unsupported-media-type", "The media type is not supported"),
}


def render(error: ServiceError) -> Response:
    """The problem document of an error."""
    document = {**error.problem(), "status": error.status, "errors": error.errors, **error.extra}
    return Response(json.dumps(document), error.status, error.headers, "application/problem+json")


def as_service_error(error: Exception) -> ServiceError:
    """Any exception as the refusal it stands for; what is not expected becomes a 500 without details."""
    match error:
        case ServiceError():
            return error
        case RequestValidationError():
            return invalid(field_errors(error), remedy="see /docs for the fields of this request")
        case HTTPException():
            kind, title = STATUS_TYPES.get(error.status_code, ("http-error", "The request failed"))
            return ServiceError(error.status_code, kind, title, str(error.detail), headers=error.headers)
        case DpdyError():
            return ServiceError(422, error.type, error.title, error.detail, error.remedy, retryable=error.retryable)
        case DataError():  # such as a NUL, which Postgres has no text for
            return ServiceError(400, *STATUS_TYPES[400], "it holds a value that the database cannot compare with")
        case OperationalError() | InterfaceError() | InternalError():  # the last: a transaction that was idle too long
            detail = "the database does not answer"
            headers = {"Retry-After": "5"}
            return ServiceError(503, "unavailable", "Not available now", detail, retryable=True, headers=headers)
        case OSError() if error.errno in BROKEN_STORAGE:
            detail = "the storage does not answer"
            headers = {"Retry-After": "5"}
            return ServiceError(503, "unavailable", "Not available now", detail, retryable=True, headers=headers)
    return ServiceError(
        500,
        "internal",
        "Internal error",
        "this is a fault of the service; its log has the details, under the X-Request-ID of this answer",
    )


def add_handlers(app: FastAPI) -> None:
    """Send every exception through `as_service_error`."""

    async def handle(_request: Request, error: Exception) -> Response:
        refusal = as_service_error(error)
        if refusal.status == 503:
            log.warning("not available: %s", error)
        response = render(refusal)
        if refusal.status == 500:  # answered outside of all middleware
            response.headers.update(ALWAYS)
            if identity := named("request_id"):
                response.headers["X-Request-ID"] = identity
        return response

    for kind in (
        DpdyError,
        RequestValidationError,
        HTTPException,
        DataError,
        OperationalError,
        InterfaceError,
        InternalError,
        OSError,
        Exception,
    ):
        app.add_exception_handler(kind, handle)
