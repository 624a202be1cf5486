"""What a browser is told and sends: security headers, no CORS unless set, the cookie of the page."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from api import keys
from api.cookies import NAME, Cookies
from api.db.models import now
from api.settings import Settings
from tests.harness import Harness, bearer, harness, make_key

SITE = "http://127.0.0.1:8000"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def guarded(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(auth="on")) as service:
        yield service


def browser(service: Harness, site: str = SITE) -> TestClient:
    """A client with a cookie jar, at the address of the service."""
    return TestClient(service.http.app, base_url=site, raise_server_exceptions=False)


def policy(answer: httpx.Response) -> dict[str, set[str]]:
    parts = (part.split() for part in answer.headers["Content-Security-Policy"].split(";"))
    return {name: set(values) for name, *values in parts}


def test_every_answer_has_them(guarded: Harness) -> None:
    guarded.http.headers.update(bearer(make_key(guarded.sessions)))
    made = guarded.http.post("/v1/jobs", json={"upload_id": guarded.upload()})
    job = made.json()["id"]
    asked = ["/", "/static/app.js", "/docs", "/openapi.json", "/livez", "/v1/jobs", "/none", f"/v1/jobs/{job}/events"]
    guarded.http.post(f"/v1/jobs/{job}/cancel")
    answers = [made, guarded.http.put("/v1/jobs"), guarded.http.get("/v1/jobs", headers={"Authorization": "x"})]
    for answer in [*answers, *(guarded.http.get(path) for path in asked)]:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Permissions-Policy" in answer.headers
        assert policy(answer)["frame-ancestors"] == {"'none'"}, answer.url
        assert "Strict-Transport-Security" not in answer.headers
        public = answer.url.path == "/openapi.json"
        assert answer.headers["Cross-Origin-Resource-Policy"] == ("cross-origin" if public else "same-origin")
        assert answer.headers.get("Access-Control-Allow-Origin") == ("*" if public else None)
    secure = browser(guarded, "https://dpdy.example").get("/")
    assert "max-age" in secure.headers["Strict-Transport-Security"]


def test_policies(guarded: Harness) -> None:
    page = policy(guarded.http.get("/"))
    assert page["script-src"] == page["connect-src"] == {"'self'"}
    assert page["default-src"] == {"'none'"}
    docs = policy(guarded.http.get("/docs"))
    assert docs["sandbox"] == {"allow-scripts", "allow-popups"}  # no `allow-same-origin`: scripts of a CDN are guests
    assert not [word for word in policy(guarded.http.get("/livez"))["default-src"] if word != "'none'"]


def test_a_fault_of_ours_has_them_too(guarded: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("api.routes.jobs.queries.jobs", broken)
    answer = guarded.http.get("/v1/jobs", headers=bearer(make_key(guarded.sessions)))
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert policy(answer)["default-src"] == {"'none'"}
    assert "secret detail" not in answer.text


def preflight(http: httpx.Client, origin: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    return http.options("/v1/jobs", headers={"Origin": origin, **asked})


def test_cors_is_off_unless_set(make_settings: Callable[..., Settings]) -> None:
    with harness(make_settings(auth="on")) as service:
        headers = bearer(make_key(service.sessions)) | {"Origin": "https://lab.example"}
        for answer in (preflight(service.http, "https://lab.example"), service.http.get("/v1/jobs", headers=headers)):
            assert not [name for name in answer.headers if name.startswith("access-control")]
    with harness(make_settings(auth="on", cors_origins=["https://lab.example"])) as service:
        allowed = preflight(service.http, "https://lab.example")
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://lab.example"
        assert "Access-Control-Allow-Credentials" not in allowed.headers
        answer = service.http.get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://lab.example")
        for origin in ("https://evil.example", "https://lab.example.evil.example", "http://lab.example", "null"):
            assert "Access-Control-Allow-Origin" not in preflight(service.http, origin).headers


@pytest.mark.parametrize("origin", ["*", "https://*.example", "https://lab.example/", "lab.example", "null"])
def test_only_exact_origins_can_be_set(make_settings: Callable[..., Settings], origin: str) -> None:
    with pytest.raises(ValidationError, match="no origin"):
        make_settings(cors_origins=[origin])


def signed_in(service: Harness, key: str, site: str = SITE) -> tuple[TestClient, httpx.Response]:
    http = browser(service, site)
    return http, http.post("/v1/session", json={"key": key}, headers=OURS)


def test_a_key_is_shown_once_and_a_cookie_takes_its_place(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    http, answer = signed_in(guarded, key)
    assert answer.json() == {"tenant": "ours", "scopes": ["write"], "seconds": 86400}
    set_cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in set_cookie.split(";")}
    assert "Secure" not in set_cookie
    assert key[13:] not in set_cookie
    assert http.get("/v1/jobs").status_code == 200
    assert http.get("/v1/info").json()["tenant"] == "ours"
    assert http.post("/v1/jobs/none/cancel", headers=OURS).status_code == 404
    assert http.delete("/v1/session", headers=OURS).status_code == 204
    assert http.get("/v1/jobs").status_code == 401
    for site in ("https://dpdy.example", SITE):
        headers = {} if site.startswith("https") else {"X-Forwarded-Proto": "https"}
        answer = browser(guarded, site).post("/v1/session", json={"key": key}, headers=OURS | headers)
        assert "Secure" in answer.headers["Set-Cookie"]


def test_wrong_keys_do_not_sign_in(guarded: Harness) -> None:
    late = make_key(guarded.sessions, expires_at=now() - timedelta(seconds=1))
    for key in (late, keys.draw_key(), "x"):
        _, answer = signed_in(guarded, key)
        assert (answer.status_code, answer.json()["type"]) == (403, "wrong-key")
        assert "Set-Cookie" not in answer.headers


def test_the_cookie_ends_with_its_key_and_with_its_time(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    http, _ = signed_in(guarded, key)
    with guarded.sessions.begin() as session:
        keys.revoke(session, key[:13])
    assert http.get("/v1/jobs").status_code == 401
    assert http.get("/v1/info").json()["tenant"] is None  # what is open stays so
    old = Cookies(b"s" * 32, 100, lambda: 1000.0)
    value = old.draw("key-1")
    assert old.key_of(value) == "key-1"
    assert Cookies(b"s" * 32, 100, lambda: 1099.0).key_of(value) == "key-1"
    assert Cookies(b"s" * 32, 100, lambda: 1100.0).key_of(value) is None
    assert Cookies(b"t" * 32, 100, lambda: 1000.0).key_of(value) is None
    for wrong in ("", ".", "..", "key-1", value[:-1], value.replace("1100", "9999"), "é.1.x", value + "."):
        assert old.key_of(wrong) is None


def test_other_sites_cannot_use_the_cookie(guarded: Harness) -> None:
    http, _ = signed_in(guarded, make_key(guarded.sessions))
    own = {"Origin": SITE}
    cases: list[tuple[dict[str, str], int]] = [
        (OURS, 404),
        (own, 404),
        ({}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": SITE + ".evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", **own}, 403),
    ]
    for headers, status in cases:
        assert http.post("/v1/jobs/none/cancel", headers=headers).status_code == status, headers
    key = make_key(guarded.sessions)
    crossed = browser(guarded).post("/v1/session", json={"key": key}, headers={"Sec-Fetch-Site": "cross-site"})
    assert crossed.status_code == 403  # nobody signs a visitor in as somebody else


def test_a_reader_s_cookie_only_reads(guarded: Harness) -> None:
    http, _ = signed_in(guarded, make_key(guarded.sessions, "ours", "read"))
    assert http.get("/v1/jobs").status_code == 200
    assert http.post("/v1/jobs/none/cancel", headers=OURS).status_code == 403
    assert http.get("/v1/webhooks/secret").status_code == 403


def test_artifacts_of_the_page_have_plain_addresses(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    guarded.http.headers.update(bearer(key))
    job = guarded.finished()["id"]
    http, _ = signed_in(guarded, key)
    urls = [item["url"] for item in http.get(f"/v1/jobs/{job}/artifacts").json()["items"]]
    assert urls
    assert not any("?" in url for url in urls)  # they stay the same, so that players go on
    assert http.get(urls[0]).status_code == 200
    assert re.fullmatch(r"[\w.-]+", http.cookies[NAME])
