"""Signing in and out of the page: a key is shown once, and a cookie takes its place."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from api import cookies
from api.access import identify
from api.deps import EverybodysDep
from api.errors import ServiceError

router = APIRouter(prefix="/v1/session", tags=["service"])


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=200, description="an API key")


class SessionOut(BaseModel):
    tenant: str
    scopes: list[str]
    seconds: int = Field(description="until the cookie ends; it ends with the key, too")


@router.post("", summary="Sign a browser in")
def sign_in(request: Request, body: SignIn, response: Response, service: EverybodysDep) -> SessionOut:
    """Sets a cookie that scripts cannot read and other sites cannot send. Programs send the key itself instead."""
    with service.sessions.begin() as session:
        caller = identify(session, body.key.strip())
    if caller is None or caller.key is None:
        raise ServiceError(
            403, "wrong-key", "This key is not valid", "the API key is unknown, revoked or expired", "ask the operator"
        )
    response.set_cookie(
        cookies.NAME,
        service.cookies.draw(caller.key),
        max_age=service.cookies.seconds,
        path="/",
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return SessionOut(tenant=caller.tenant, scopes=list(caller.scopes), seconds=service.cookies.seconds)


@router.delete("", status_code=204, summary="Sign the browser out")
def sign_out(request: Request, response: Response) -> None:
    """Forgets the cookie."""
    response.delete_cookie(cookies.NAME, path="/", secure=_is_secure(request), httponly=True, samesite="strict")


def _is_secure(request: HTTPConnection) -> bool:
    """Whether the browser came by https, here or at the proxy before us."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
