"""What a tenant may have and ask for: 429 with Retry-After, exact also when many come at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api.db.models import Job, Upload
from api.errors import ServiceError
from api.rates import MOST_BUCKETS, Buckets, Open
from api.settings import Settings
from tests.harness import bearer, harness, make_key, steer, upload

Make = Callable[..., Settings]


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, make_settings: Make) -> Callable[..., Any]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    return lambda **changes: harness(make_settings(auth="on", database_url=url, **changes))


def refused(answer: httpx.Response, type: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (429, type), answer.text
    assert answer.json()["retryable"]
    assert int(answer.headers["Retry-After"]) >= 1


def test_waiting_jobs(make: Callable[..., Any]) -> None:
    with make(tenant_queued_jobs=3) as service:
        theirs = bearer(make_key(service.sessions, "theirs"))
        service.http.headers.update(bearer(make_key(service.sessions, "ours")))
        body = {"upload_id": upload(service.http), "preset": "smoke", "settings": steer()}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: service.http.post("/v1/jobs", json=body), range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 5
        refused(next(answer for answer in answers if answer.status_code == 429), "quota-jobs")
        with service.sessions() as session:
            jobs = session.scalars(select(Job.id)).all()
        assert len(jobs) == 3
        first = service.http.post(f"/v1/jobs/{jobs[0]}/cancel").json()["id"]
        assert service.http.post("/v1/jobs", json=body).status_code == 202
        refused(service.http.post(f"/v1/jobs/{first}/retry"), "quota-jobs")
        service.http.headers.update(theirs)
        body["upload_id"] = upload(service.http)
        assert service.http.post("/v1/jobs", json=body).status_code == 202
        assert service.http.get("/v1/info").json()["limits"]["tenant_queued_jobs"] == 3


def test_uploads(make: Callable[..., Any]) -> None:
    with make(tenant_uploads=3, tenant_upload_bytes=20) as service:
        http = service.http
        http.headers.update(bearer(make_key(service.sessions, "ours")))
        with ThreadPoolExecutor(6) as pool:  # without a length: the bytes decide
            sent = list(pool.map(lambda _: http.post("/v1/uploads?filename=a.mp4", content=iter([b"1234"])), range(6)))
        assert sorted(answer.status_code for answer in sent) == [201] * 3 + [429] * 3
        refused(next(answer for answer in sent if answer.status_code == 429), "quota-uploads")
        with service.sessions() as session:
            assert len(session.scalars(select(Upload.id)).all()) == 3
        uploads = service.settings.data / "uploads"
        assert len([file for file in uploads.iterdir() if file.is_file()]) == 3  # nothing of the others is left
        kept = next(answer.json()["id"] for answer in sent if answer.status_code == 201)
        assert http.delete(f"/v1/uploads/{kept}").status_code in (204, 409)
        refused(http.post("/v1/uploads?filename=a.mp4", content=b"x" * 13), "quota-bytes")
        refused(http.post("/v1/uploads?filename=a.mp4", content=iter([b"x" * 13])), "quota-bytes")
        assert http.post("/v1/uploads?filename=a.mp4", content=b"x" * 12).status_code == 201
        http.headers.update(bearer(make_key(service.sessions, "theirs")))
        assert http.post("/v1/uploads?filename=a.mp4", content=b"x" * 20).status_code == 201


def test_requests(make_settings: Make) -> None:
    limits = {"tenant_requests_per_minute": 60, "stranger_requests_per_minute": 30}
    with harness(make_settings(auth="on", **limits)) as service:
        keys = [bearer(make_key(service.sessions, "ours")) for _ in range(2)]
        asked = [service.http.get("/v1/jobs", headers=keys[number % 2]) for number in range(12)]
        assert [answer.status_code for answer in asked[:10]] == [200] * 10
        refused(asked[11], "rate-limit")
        theirs = bearer(make_key(service.sessions, "theirs"))
        assert service.http.get("/v1/jobs", headers=theirs).status_code == 200
        guesses = [service.http.get("/v1/jobs", headers=bearer("dpdy_guess")) for _ in range(6)]
        assert [answer.status_code for answer in guesses[:5]] == [401] * 5
        refused(guesses[5], "rate-limit")
        refused(service.http.get("/v1/presets"), "rate-limit")
        assert service.http.get("/livez").status_code == 200  # the supervisor's
        assert service.http.get("/v1/jobs", headers=theirs).status_code == 200  # from the same address, with a key


def test_without_keys_there_are_none(make_settings: Make) -> None:
    limits = {"tenant_requests_per_minute": 1, "tenant_queued_jobs": 1, "tenant_uploads": 1, "tenant_open_requests": 1}
    with harness(make_settings(**limits)) as service:
        for _ in range(3):
            service.submit()


def test_buckets_fill_up_again() -> None:
    time = [0.0]
    buckets = Buckets(60, lambda: time[0])
    for _ in range(10):
        buckets.take("a")
    with pytest.raises(ServiceError) as raised:
        buckets.take("a")
    assert raised.value.headers["Retry-After"] == "1"
    buckets.take("b")
    time[0] = 1.0
    buckets.take("a")
    with pytest.raises(ServiceError):
        buckets.take("a")
    time[0] = 1000.0
    for _ in range(10):  # and no more than ten at once
        buckets.take("a")
    with pytest.raises(ServiceError):
        buckets.take("a")
    slow = Buckets(1, lambda: time[0])
    slow.take("a")
    with pytest.raises(ServiceError) as raised:
        slow.take("a")
    assert raised.value.headers["Retry-After"] == "60"


def test_buckets_of_the_past_are_forgotten() -> None:
    buckets = Buckets(60, lambda: 0.0)
    for number in range(MOST_BUCKETS + 10):
        buckets.take(str(number))
    assert len(buckets._left) == MOST_BUCKETS


def test_open_requests() -> None:
    places = Open(2)
    places.enter("a")
    places.enter("a")
    with pytest.raises(ServiceError) as raised:
        places.enter("a")
    assert raised.value.type == "too-many-open"
    places.enter("b")
    for _ in range(9):
        places.enter("")  # without keys there is no limit
    places.leave("a")
    places.enter("a")
