"""Expected refusals. How they are answered is in `api.problems`, which workers need not load."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpdy_core.errors import DpdyError

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError

FieldErrors = list[dict[str, str]]


class ServiceError(DpdyError):
    """An expected refusal, with its HTTP status. `type` is stable; clients may rely on it."""

    def __init__(
        self,
        status: int,
        type: str,
        title: str,
        detail: str,
        remedy: str = "",
        *,
        retryable: bool = False,
        errors: FieldErrors | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail, remedy)
        self.status = status
        self.type = type
        self.title = title
        self.retryable = retryable
        self.errors = errors or []
        self.headers = dict(headers or {})
        self.extra = extra


def not_found(kind: str, identity: str) -> ServiceError:
    return ServiceError(404, "not-found", f"There is no such {kind}", f"there is no {kind} {identity!r}")


def invalid(errors: FieldErrors, type: str = "invalid-request", remedy: str = "") -> ServiceError:
    """422 that names each wrong field."""
    detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
    return ServiceError(422, type, "The request is not valid", detail, remedy, errors=errors)


def field_errors(error: "ValidationError | RequestValidationError", prefix: tuple[str, ...] = ()) -> FieldErrors:
    """`errors[]` of a problem: field as a dotted path, what is wrong with it, and pydantic's kind of error."""
    found = []
    for item in error.errors():
        place = [*prefix, *(str(part) for part in item["loc"] if part not in ("body", "query", "path", "header"))]
        found.append({"field": ".".join(place) or "body", "detail": str(item["msg"]), "type": str(item["type"])})
    return found
