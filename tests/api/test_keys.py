import json
import re
import string
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api import keys
from api.db.models import ApiKey, now
from api.main import create_app
from api.settings import Settings
from dpdy_core.command import run_command
from tests.harness import Harness, bearer, harness, make_key
from worker.admin import app


@pytest.fixture
def guarded(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(auth="on")) as service:
        yield service


def test_keys_are_long_random_and_checked() -> None:
    drawn = {keys.draw_key() for _ in range(50)}
    assert len(drawn) == 50
    for key in drawn:
        assert re.fullmatch(r"dpdy_[0-9A-Za-z]{46}", key)
        assert keys.well_formed(key)
        for wrong in (key[:-1], key + "0", key.swapcase(), key[:20] + ("a" if key[20] != "a" else "b") + key[21:]):
            assert not keys.well_formed(wrong)
    digits = [
        (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(c) for c in keys.checksum("123456789")
    ]
    assert sum(digit * 62**power for power, digit in enumerate(reversed(digits))) == 0xCBF43926  # CRC-32's check value


def test_only_a_hash_is_kept(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    with guarded.sessions() as session:
        [row] = keys.listing(session)
    assert row.digest == sha256(key.encode()).hexdigest()
    kept = json.dumps([str(getattr(row, column.name)) for column in ApiKey.__table__.columns])
    assert key not in kept
    assert key[13:45] not in kept


def ask(service: Harness, authorization: str | None, method: str = "GET", path: str = "/v1/jobs") -> tuple[int, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = service.http.request(method, path, headers=headers)
    if answer.status_code in (401, 403):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="dpdy"')
    return answer.status_code, answer.json().get("type", "")


def test_without_a_valid_key_nothing_opens(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    assert ask(guarded, f"Bearer {key}")[0] == 200
    assert ask(guarded, f"bearer  {key}")[0] == 200
    stranger = keys.draw_key()
    twin = key[:13] + stranger[13:45]  # the name of a real key, another secret, a right checksum
    bad = ["", "Bearer", "Bearer x", f"Basic {key}", key, f"Bearer {stranger}", f"Bearer {twin}{keys.checksum(twin)}"]
    for authorization in (None, *bad):
        assert ask(guarded, authorization) == (401, "unauthorised"), authorization
    assert guarded.http.get(f"/v1/jobs?api_key={key}&key={key}").status_code == 401
    double = guarded.http.get("/v1/jobs", headers=[("Authorization", f"Bearer {key}")] * 2)
    assert double.status_code == 401


def test_revoked_and_expired_keys_end_at_once(guarded: Harness) -> None:
    late = make_key(guarded.sessions, expires_at=now() - timedelta(seconds=1))
    early = make_key(guarded.sessions, expires_at=now() + timedelta(hours=1))
    assert ask(guarded, f"Bearer {late}")[0] == 401
    assert ask(guarded, f"Bearer {early}")[0] == 200
    with guarded.sessions.begin() as session:
        assert keys.revoke(session, early[:13]) is not None
    assert ask(guarded, f"Bearer {early}")[0] == 401
    assert ask(guarded, f"Bearer {early}", path="/v1/info")[0] == 401  # also where no key is needed


def test_scopes(guarded: Harness) -> None:
    expected = {"read": (200, 403, 403), "write": (200, 404, 403), "admin": (200, 404, 200)}
    for scope, wanted in expected.items():
        key = f"Bearer {make_key(guarded.sessions, 'ours', scope)}"
        read, write = ask(guarded, key), ask(guarded, key, "POST", "/v1/jobs/none/cancel")
        metrics = guarded.http.get("/metrics", headers={"Authorization": key})
        assert (read[0], write[0], metrics.status_code) == wanted
        for status, type in (write, (metrics.status_code, metrics.text)):
            assert status != 403 or "missing-scope" in type
    refused = guarded.http.delete("/v1/jobs/none", headers=bearer(make_key(guarded.sessions, "ours", "read")))
    assert 'scope="write"' in refused.headers["WWW-Authenticate"]


def test_use_is_noted(guarded: Harness) -> None:
    key = make_key(guarded.sessions)
    noted = []
    for _ in range(3):
        assert ask(guarded, f"Bearer {key}")[0] == 200
        with guarded.sessions() as session:
            noted.append(keys.listing(session)[0].last_used_at)
    assert noted[0]
    assert len(set(noted)) == 1  # not written again within a minute


@pytest.mark.parametrize(
    ("server", "headers", "auth", "status"),
    [
        ("127.0.0.1", {}, None, 200),
        ("127.0.0.1", {}, "on", 401),
        ("localhost", {}, None, 200),
        ("192.0.2.7", {}, None, 401),
        ("192.0.2.7", {}, "off", 200),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.9"}, None, 401),  # a proxy lets strangers in
        ("127.0.0.1", {"Host": "attacker.example"}, None, 401),  # DNS rebinding
        ("127.0.0.1", {"Host": "[::1]:8000"}, None, 200),
    ],
)
def test_the_default_is_off_for_this_machine_only(
    make_settings: Callable[..., Settings], server: str, headers: dict[str, str], auth: str | None, status: int
) -> None:
    with harness(make_settings(auth=auth)) as service:
        http = TestClient(service.http.app, base_url=f"http://{server}")
        assert http.get("/v1/jobs", headers=headers).status_code == status
        assert http.get("/v1/info", headers=headers).json()["auth"] == ("off" if status == 200 else "on")
        assert http.get("/livez", headers=headers).status_code == 200


def test_pages_of_other_sites_cannot_write(service: Harness) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 404), ("none", 404)):
        answer = service.http.post("/v1/jobs/none/cancel", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == status


def test_database_away_is_503_for_keys_too(make_settings: Callable[..., Settings]) -> None:
    http = TestClient(create_app(make_settings(auth="on", database_url="postgresql://nobody@127.0.0.1:1/none")))
    assert http.get("/v1/jobs", headers=bearer(keys.draw_key())).status_code == 503
    assert http.get("/v1/jobs", headers=bearer("dpdy_wrong")).status_code == 401  # told without the database


def test_the_operator_makes_lists_and_revokes_keys(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DPDY_DATA", str(tmp_path / "data"))

    def run(*arguments: str, code: int = 0) -> str:
        assert run_command(app, ["admin", "keys", *arguments], "dpdy") == code
        return capsys.readouterr().out

    made = json.loads(run("create", "--tenant", "lab", "--name", "desk", "--scope", "read", "--days", "1", "--json"))
    plain = run("create").strip()
    assert keys.well_formed(made["key"])
    assert keys.well_formed(plain)
    listed = json.loads(run("list", "--json"))["items"]
    assert [(item["tenant"], item["scopes"], item["state"]) for item in listed] == [
        ("lab", ["read"], "valid"),
        ("default", ["write"], "valid"),
    ]
    assert made["key"][13:] not in json.dumps(listed)
    assert plain[:13] in run("list")
    with harness(make_settings(auth="on", data=tmp_path / "data")) as service:
        assert ask(service, f"Bearer {made['key']}")[0] == 200
        assert json.loads(run("revoke", made["id"], "--json"))["state"] == "revoked"
        assert ask(service, f"Bearer {made['key']}")[0] == 401
    run("revoke", "key-none", code=3)
    run("create", "--tenant", "No good", code=2)
    run("create", "--scope", "all", code=2)
