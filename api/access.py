"""Who calls, and what they may do: decided for every request before a route or a body is looked at.

A caller shows an API key, a signed link, or the cookie of a browser that has shown a key. Without any of them only what
`OPEN` names can be reached; a route that nobody thought of is closed. Which rows a caller sees
is decided by their tenant, in `api.db.session`.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api import keys
from api.cookies import NAME, Cookies
from api.db.models import DEFAULT_TENANT, SCOPES, ApiKey
from api.db.session import Sessions
from api.errors import ServiceError
from api.problems import as_service_error, render
from api.rates import Buckets, Open
from api.settings import Settings
from api.signing import SHARED, Links, is_signed

log = logging.getLogger(__name__)

READ = ("GET", "HEAD")
_STUDY = r"/v1/studies/[^/]+"
OPEN = [  # methods and paths that need no key: the page, what it must know before it has a key, and voters
    (READ, re.compile(r"/|/static/.*|/docs|/openapi\.json|/livez|/readyz|/v1/info|/v1/presets")),
    (READ, re.compile(rf"{_STUDY}|{_STUDY}/voters/[^/]+|{_STUDY}/pairs/[^/]+/(left|right)")),
    (("POST",), re.compile(rf"{_STUDY}/(voters|votes)|/v1/session")),
    (("DELETE",), re.compile("/v1/session")),
]
SECRETS = re.compile(r"/v1/webhooks/secret")  # who may only read must not sign as us
OPERATOR = re.compile(r"/metrics|/v1/admin(/.*)?")  # numbers of all tenants: only with the scope `admin`
PROBES = ("/livez", "/readyz")
SAME_SITE = (None, "same-origin", "none")  # Sec-Fetch-Site of requests that no other site sent


@dataclass(frozen=True)
class Caller:
    """Whose rows a request reaches (of nobody: none), and what it may do. `key` is the id of the API key, if any.

    `bare`: it comes with an API key, so that what it is given for others, such as a player, must open without one.
    """

    tenant: str
    scopes: tuple[str, ...]
    key: str | None = None
    keys_needed: bool = True
    bare: bool = False

    @property
    def limited(self) -> str:
        """The tenant whose limits hold; nothing where no keys are needed."""
        return self.tenant if self.keys_needed else ""


NOBODY = Caller("", ())
EVERYONE = Caller(DEFAULT_TENANT, SCOPES, keys_needed=False)


class Access:
    """Middleware that sets `scope["state"]["caller"]`, or answers 401 or 403."""

    def __init__(self, app: ASGIApp, settings: Settings, sessions: Sessions, links: Links, cookies: Cookies) -> None:
        self._app = app
        self._auth = settings.auth
        self._friends = settings.cors_origins
        self._sessions = sessions
        self._links = links
        self._cookies = cookies
        self._tenants = Buckets(settings.tenant_requests_per_minute)
        self._strangers = Buckets(settings.stranger_requests_per_minute)
        self._open = Open(settings.tenant_open_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._counted(scope)
            self._open.enter(caller.limited)
        except Exception as error:
            if not isinstance(error, ServiceError | SQLAlchemyError):
                log.exception("a caller could not be told")
            await render(as_service_error(error))(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        try:
            await self._app(scope, receive, send)
        finally:
            self._open.leave(caller.limited)

    async def _counted(self, scope: Scope) -> Caller:
        """The caller, as often as they may come; a refusal counts for the address. Raises 429."""
        address = (scope.get("client") or ("",))[0]
        try:
            caller = await self._caller(scope)
        except ServiceError:
            self._strangers.take(address)
            raise
        if caller.limited:
            self._tenants.take(caller.limited)
        elif caller.keys_needed and scope["path"] not in PROBES:
            self._strangers.take(address)
        return caller

    async def _caller(self, scope: Scope) -> Caller:
        """Raises 401 without a valid key where one is needed, 403 where it lacks the scope."""
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        if self._auth == "off" or (self._auth is None and not _from_elsewhere(scope, headers)):
            self._check_site(method, headers)
            return EVERYONE
        if path.startswith(f"{SHARED}/"):
            return _reader(self._links.sharer(method, path))
        query = scope["query_string"].decode("latin-1")
        if "authorization" not in headers:
            if is_signed(query):
                return _reader(self._links.tenant_of(method, path, query))
            caller = await self._of_cookie(method, headers)
            if caller is None and (method == "OPTIONS" or _is_open(method, path)):
                return NOBODY
            if caller is None:
                raise _unauthorised("the request has no API key", "")
            return self._allowed(caller, method, path)
        key = _bearer(headers)
        if not keys.well_formed(key):
            raise _unauthorised("this is no API key: its checksum is wrong", ' error="invalid_token"')
        caller = await run_in_threadpool(self._identify, lambda session: keys.find(session, key))
        if caller is None:
            raise _unauthorised("the API key is unknown, revoked or expired", ' error="invalid_token"')
        return replace(self._allowed(caller, method, path), bare=True)

    def _allowed(self, caller: Caller, method: str, path: str) -> Caller:
        """The caller, if it has the scope that this asks for."""
        scope_needed = _needed(method, path)
        if not _is_open(method, path) and not keys.allows(caller.scopes, scope_needed):
            detail = f"the API key has the scopes {', '.join(caller.scopes)}; this needs {scope_needed}"
            challenge = f'Bearer realm="dpdy", error="insufficient_scope", scope="{scope_needed}"'
            raise ServiceError(
                403,
                "missing-scope",
                "The API key may not do this",
                detail,
                "use a key with this scope",
                headers={"WWW-Authenticate": challenge},
            )
        return caller

    async def _of_cookie(self, method: str, headers: Headers) -> Caller | None:
        """Who signed in, in a browser. Raises 403 for a write that the page itself did not send."""
        self._check_site(method, headers)
        key_id = self._cookies.key_of(_cookie(headers))
        if key_id is None:
            return None
        if method not in (*READ, "OPTIONS") and not _is_same_site(headers):
            raise _cross_site()
        return await run_in_threadpool(self._identify, lambda session: keys.get(session, key_id))

    def _identify(self, find: Callable[[Session], ApiKey | None]) -> Caller | None:
        with self._sessions.begin() as session:
            return _caller_of(session, find(session))

    def _check_site(self, method: str, headers: Headers) -> None:
        """Without a key a page of another site could make a visitor's browser write here: raises 403."""
        ours = headers.get("sec-fetch-site") in SAME_SITE or headers.get("origin") in self._friends
        if method not in (*READ, "OPTIONS") and not ours:
            raise _cross_site()


def _reader(tenant: str | None) -> Caller:
    """Who came by a link of this tenant's. Raises 401 for none."""
    if tenant is None:
        raise _unauthorised("the link is not one of ours for this, or its time is over", "")
    return Caller(tenant, ("read",))


def identify(session: Session, key: str) -> Caller | None:
    """Whose key this is; None if it is not valid."""
    return _caller_of(session, keys.find(session, key))


def _caller_of(session: Session, row: ApiKey | None) -> Caller | None:
    if row is None:
        return None
    keys.note_use(session, row)
    return Caller(row.tenant, tuple(row.scopes), row.id)


def _needed(method: str, path: str) -> str:
    """The scope that a route asks for."""
    if OPERATOR.fullmatch(path):
        return "admin"
    return "read" if method in (*READ, "OPTIONS") and not SECRETS.fullmatch(path) else "write"


def _is_open(method: str, path: str) -> bool:
    return any(method in methods and paths.fullmatch(path) for methods, paths in OPEN)


def _bearer(headers: Headers) -> str:
    given = headers.getlist("authorization")
    kind, _, key = given[0].partition(" ")
    if len(given) > 1 or kind.lower() != "bearer":
        raise _unauthorised("the Authorization header is no bearer token", ' error="invalid_request"')
    return key.strip()


def _unauthorised(detail: str, error: str) -> ServiceError:
    return ServiceError(
        401,
        "unauthorised",
        "An API key is needed",
        detail,
        "send `Authorization: Bearer KEY`; the operator makes keys with `dpdy admin keys create`",
        headers={"WWW-Authenticate": f'Bearer realm="dpdy"{"," + error if error else ""}'},
    )


def _from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether a request may come from another machine: not over loopback, through a proxy, or by a name of the network.

    The last keeps out sites that let their own name point to this machine (DNS rebinding).
    """
    host, port = scope.get("server") or ("", None)
    if port is None or "forwarded" in headers or "x-forwarded-for" in headers:  # a Unix socket is a proxy's
        return True
    try:
        if not ip_address(host).is_loopback:
            return True
    except ValueError:  # a test client, in this process
        return False
    name = re.sub(r":\d*$", "", headers.get("host", "")).strip("[]").lower()
    return name != "localhost" and not name.endswith(".localhost") and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _cookie(headers: Headers) -> str:
    """The cookie's value, as the browser sent it."""
    parts = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in parts if name == NAME), "")


def _is_same_site(headers: Headers) -> bool:
    """Whether our own page sent this; old browsers tell it by `Origin` only."""
    if "sec-fetch-site" in headers:
        return headers["sec-fetch-site"] == "same-origin"
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host")


def _cross_site() -> ServiceError:
    detail = "a page of another site sent the request"
    return ServiceError(403, "cross-site", "Other sites may not write here", detail, "send an API key")
