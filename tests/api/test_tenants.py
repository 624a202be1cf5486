"""Every route, once without a key, once with the key of another tenant: one that nobody thought of fails here."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from api.settings import Settings
from tests.harness import Document, Harness, bearer, harness, make_key, steer, submit, upload

PUBLIC = {"/", "/docs", "/openapi.json", "/livez", "/readyz", "/v1/info", "/v1/presets"}
JOIN = ("POST", "/v1/studies/{study_id}/voters")  # strangers need an invitation
VOTERS = {  # who was invited votes without a key
    ("GET", "/v1/studies/{study_id}"),
    ("GET", "/v1/studies/{study_id}/voters/{voter_id}"),
    ("GET", "/v1/studies/{study_id}/pairs/{pair_id}/{side}"),
    ("HEAD", "/v1/studies/{study_id}/pairs/{pair_id}/{side}"),
    ("POST", "/v1/studies/{study_id}/votes"),
}
TUS = "/v1/uploads/tus"
LISTS = {"/v1/jobs", "/v1/studies"}
OPERATORS = {"/metrics"}
SESSION = {("POST", "/v1/session"): 422, ("DELETE", "/v1/session"): 204}  # signing in shows a key in its body
OWN = {"/v1/webhooks/secret", "/v1/webhooks/secret/rotate"}  # everybody has one


@pytest.fixture
def guarded(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(auth="on", webhook_loopback=True)) as service:
        yield service


def owned(service: Harness) -> Document:
    """What a tenant has: an upload, a job that is done, an open study with a voter."""
    http = service.http
    http.headers.update(bearer(make_key(service.sessions, "ours")))
    used = upload(http)
    job = service.submit(steer(), used, webhook="http://127.0.0.1:9/")
    assert service.runner.run(job["id"])
    job = service.job(job["id"])
    assert job["state"] == "succeeded"
    clips = [{"method": name, "job_id": job["id"], "path": "renders/orbit.mp4"} for name in ("a", "b")]
    study = http.post("/v1/studies", json={"name": "s", "clips": clips}).json()
    ballot = http.post(f"/v1/studies/{study['id']}/voters").json()
    del http.headers["Authorization"]
    ids = {
        "delivery_id": job["webhook"]["deliveries"][0]["id"],
        "job_id": job["id"],
        "upload_id": used,
        "study_id": study["id"],
        "voter_id": ballot["voter"],
    }
    ids["token"] = "1.ours.signature"
    return ids | {"pair_id": ballot["pair"]["id"], "side": "left", "path": "report.html"}


def routes(service: Harness) -> list[tuple[str, str]]:
    found = [
        (method, route.path)
        for route in iter_route_contexts(service.http.app.routes)  # type: ignore[attr-defined]
        for method in route.methods or ()
    ]
    described = service.http.get("/openapi.json").json()["paths"]
    assert {(m.upper(), path) for path, of in described.items() for m in of} <= {
        (m, path.replace(":path}", "}")) for m, path in found
    }
    assert [route.path for route in service.http.app.routes if isinstance(route, Mount)] == ["/static"]  # type: ignore[attr-defined]
    return found


def body(path: str, ids: Document) -> dict[str, Any]:
    """A body that names what the other tenant owns."""
    clips = [{"method": name, "upload_id": ids["upload_id"]} for name in ("a", "b")]
    return {
        "/v1/jobs": {"upload_id": ids["upload_id"], "preset": "smoke"},
        "/v1/jobs/{job_id}/renders": {"path": "orbit"},
        "/v1/studies": {"name": "s", "clips": clips},
        "/v1/studies/{study_id}/invitations": {"count": 1},
        "/v1/studies/{study_id}/votes": {"voter": ids["voter_id"], "pair": ids["pair_id"], "choice": "left"},
    }.get(path, {})


def ask(service: Harness, method: str, path: str, ids: Document, headers: dict[str, str]) -> tuple[int, str]:
    names = {name.removesuffix(":path") for name in path.replace("}", "{").split("{")[1::2]}
    assert names <= ids.keys(), f"{path}: tell this test what another tenant would try"
    url = path.replace(":path}", "}").format(**ids)
    if path.startswith(TUS):
        headers = headers | {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
        headers |= {"Upload-Offset": "0"}
    answer = service.http.request(method, url, json=body(path, ids) or None, headers=headers)
    problem = answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else {}
    text = problem.get("detail", "") if answer.status_code >= 400 else answer.text
    for value in ids.values():
        text = text.replace(value, "ID")
    return answer.status_code, text if answer.status_code >= 400 else ""


def test_every_route_is_closed_to_strangers_and_to_other_tenants(guarded: Harness) -> None:
    ours = owned(guarded)
    unknown = {name: "none" if name.endswith("_id") else value for name, value in ours.items()}
    theirs = bearer(make_key(guarded.sessions, "theirs"))
    for method, path in routes(guarded):
        where = f"{method} {path}"
        stranger, _ = ask(guarded, method, path, ours, {})
        if path in PUBLIC:
            assert stranger in (200, 503), where
            continue
        if (method, path) in SESSION:
            assert stranger == SESSION[method, path], where
            continue
        if method == "OPTIONS":  # of tus: what /v1/info tells
            assert (stranger, path.startswith(TUS)) == (204, True), where
            continue
        if (method, path) == JOIN:
            assert stranger == 403, where
            continue
        if (method, path) in VOTERS:
            assert stranger in (200, 201), where
            continue
        assert stranger == 401, where
        if path.startswith("/v1/shared/"):  # no key opens it, only its own address
            assert ask(guarded, method, path, ours, theirs)[0] == 401, where
            continue
        answer = ask(guarded, method, path, ours, theirs)
        if path in OPERATORS:
            assert answer[0] == 403, where
        elif path in OWN:
            assert answer[0] == 200, where
        elif method == "GET" and path in LISTS:
            assert guarded.http.get(path, headers=theirs).json()["items"] == [], where
        elif path == "/v1/uploads":
            assert answer[0] == 422, where  # a new one, without its name
        elif path == TUS:
            assert answer[0] == 400, where  # the same, without its size
        else:
            assert answer[0] in (404, 422), where
            assert answer == ask(guarded, method, path, unknown, theirs), f"{where} tells others' things from none"
    key = bearer(make_key(guarded.sessions, "ours", "read"))
    assert guarded.http.get(f"/v1/jobs/{ours['job_id']}", headers=key).json()["state"] == "succeeded"
    assert guarded.http.get(f"/v1/uploads/{ours['upload_id']}", headers=key).json()["state"] == "ready"
    assert guarded.http.get(f"/v1/studies/{ours['study_id']}", headers=key).json()["state"] == "open"
    assert len(guarded.http.get("/v1/jobs", headers=key).json()["items"]) == 1


def test_idempotency_keys_and_queues_of_tenants(guarded: Harness) -> None:
    http, jobs = guarded.http, []
    for tenant in ("ours", "theirs"):
        headers = bearer(make_key(guarded.sessions, tenant))
        http.headers.update(headers)
        request = {"upload_id": upload(http), "preset": "smoke", "settings": steer()}
        answers = [http.post("/v1/jobs", json=request, headers={"Idempotency-Key": "same"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert answers[0].json()["id"] == answers[1].json()["id"]
        jobs.append(answers[0].json())
    assert jobs[0]["id"] != jobs[1]["id"]
    assert [job["queue_position"] for job in jobs] == [1, 2]  # there is one queue


def test_without_keys_all_belongs_to_the_default_tenant(
    service: Harness, make_settings: Callable[..., Settings]
) -> None:
    job = submit(service.http, upload(service.http))
    with harness(make_settings(auth="on")) as later:
        for tenant, status in (("default", 200), ("ours", 404)):
            headers = bearer(make_key(later.sessions, tenant))
            assert later.http.get(f"/v1/jobs/{job['id']}", headers=headers).status_code == status


def test_signed_links_open_one_file_for_reading(guarded: Harness) -> None:
    ours = owned(guarded)
    http, listing = guarded.http, f"/v1/jobs/{ours['job_id']}/artifacts"
    reader = bearer(make_key(guarded.sessions, "ours", "read"))
    items = {item["path"]: item["url"] for item in http.get(listing, headers=reader).json()["items"]}
    link = items["renders/orbit.mp4"]
    assert (
        http.get(link).status_code == http.head(link).status_code == http.get(f"{link}&download=1").status_code == 200
    )
    query = link.partition("?")[2]
    forged = [
        link[:-2] + ("AA" if link[-2:] != "AA" else "BB"),
        link.replace("tenant=ours", "tenant=theirs"),
        link.replace("expires=", "expires=9"),
        link + "&tenant=ours",
        f"{listing}?{query}",
        f"{listing}.zip?{query}",
        f"{listing}/metrics.json?{query}",
        f"/v1/jobs?{query}",
    ]
    for url in forged:
        assert http.get(url).status_code == 401, url
    for method in ("PUT", "DELETE", "POST"):
        assert http.request(method, link).status_code == 401
    assert http.get(link, headers=bearer("dpdy_wrong")).status_code == 401  # a key that is sent must be good
