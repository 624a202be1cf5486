"""Studies over the real API, with real databases."""

import csv
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from api.settings import Settings
from tests.api.studies.voters import Study, Voter, cast_all
from tests.harness import Document, Harness, harness

METHODS = ("ours", "rival", "baseline", "worst")


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    """The service over either database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with harness(make_settings(database_url=url)) as running:
        yield running


@pytest.fixture
def study(service: Harness) -> Study:
    return Study.of_uploads(service, METHODS, ("dog", "street"))


def test_thirty_voters_of_known_preference_recover_the_order(anywhere: Harness) -> None:
    """Ballots differ from run to run, so the bounds are four and more standard errors wide."""
    study = Study.of_uploads(anywhere, METHODS, ("dog",))
    truth = {method: 1.5 * (1.5 - rank) for rank, method in enumerate(METHODS)}
    random = Random(1)
    for _ in range(30):
        assert cast_all(Voter(study, truth, random)) == 6 + 3  # all pairs, and the repeats
    found = study.get("results").json()
    assert [entry["method"] for entry in found["methods"]] == list(METHODS)
    for entry in found["methods"]:
        half = (entry["high"] - entry["low"]) / 2
        assert entry["score"] == pytest.approx(truth[entry["method"]], abs=2.3 * half)
        assert 0.1 < half < 1
    assert found["tie_strength"] == pytest.approx(0.5, abs=0.45)
    assert found["model"] == "davidson"
    assert found["interval"].startswith("bootstrap over ")
    assert len(found["voters"]) == 30
    flagged = {voter["voter"] for voter in found["voters"] if voter["flagged"]}
    assert found["votes"] == 6 * (30 - len(flagged))
    assert 0.1 < found["agreement"]["u"] < found["agreement"]["same"] < 1
    everyone = study.get("results?flagged=true").json()
    assert everyone["votes"] == 180
    assert sum(entry["wins"] + entry["ties"] / 2 for entry in everyone["methods"]) == 180
    assert study.get("results").content == study.get("results").content  # the bootstrap is seeded


def test_who_always_takes_the_left_is_flagged_and_left_out(study: Study) -> None:
    steady = Voter(study, {method: -50.0 * rank for rank, method in enumerate(METHODS)}, Random(0))
    cast_all(steady)
    lazy = study.join()
    while lazy["pair"]:
        lazy = study.vote(lazy["voter"], lazy["pair"]["id"], "left").json()
    found = study.get("results").json()
    assert [(voter["contradictions"], voter["flagged"]) for voter in found["voters"]] == [(0, False), (3, True)]
    assert (found["voters"][1]["left"], found["voters"][1]["right"]) == (15, 0)
    assert found["votes"] == 12
    assert [(entry["wins"], entry["losses"]) for entry in found["methods"]] == [(6, 0), (4, 2), (2, 4), (0, 6)]
    assert [entry["method"] for entry in found["methods"]] == list(METHODS)
    assert "voters who contradict themselves are left out: 1" in found["notes"]
    assert found["interval"].startswith("Hessian")


def test_a_ballot_tells_nothing_of_methods(study: Study) -> None:
    ballot = study.join()
    seen: set[str] = set()
    while pair := ballot["pair"]:
        assert set(pair) == {"id", "number", "left", "right"}
        assert not seen & {pair["left"], pair["right"]}  # no address comes twice, not even in a repeat
        seen |= {pair["left"], pair["right"]}
        for side in ("left", "right"):
            answer = study.http.get(pair[side], headers={"Range": "bytes=0-3"})
            assert (answer.status_code, answer.headers["Content-Type"]) == (206, "video/mp4")
            for word in (*METHODS, *study.clips):
                assert word not in str(answer.headers)
        ballot = study.vote(ballot["voter"], pair["id"], "tie").json()
    assert len(seen) == 30
    text = study.get("").text
    assert not [word for word in (*METHODS, *study.clips) if word in text]


def test_the_table_has_every_vote_with_what_was_seen(study: Study) -> None:
    voter = Voter(study, {method: -50.0 * rank for rank, method in enumerate(METHODS)}, Random(0))
    cast_all(voter)
    answer = study.get("votes.csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 15
    assert [row["choice"] for row in rows] == voter.choices
    assert [row["number"] for row in rows] == [str(number) for number in range(1, 16)]
    assert sum(row["repeated"] == "1" for row in rows) == 3
    for row in rows:
        assert row["preferred"] == min(row["left"], row["right"], key=METHODS.index) == row[row["choice"]]
        assert (row["voter"], row["flagged"], row["scene"] in ("dog", "street")) == ("1", "0", True)
        assert float(row["seconds"]) >= 0
    assert voter.token not in answer.text


def test_votes_that_may_not_be(anywhere: Harness) -> None:
    study = Study.of_uploads(anywhere, ("a", "b", "c"), ("dog",))
    mine, other = study.join(), study.join()
    pair, token = mine["pair"]["id"], mine["voter"]
    foreign = Study.of_uploads(study.service, ("a", "b"), ("x",)).join()
    for voter, which, choice, status, kind in (
        (token, other["pair"]["id"], "left", 422, "pair-not-found"),
        (token, foreign["pair"]["id"], "left", 422, "pair-not-found"),
        (token, "pair-unknown", "left", 422, "pair-not-found"),
        (foreign["voter"], foreign["pair"]["id"], "left", 422, "voter-not-found"),
        ("voter-unknown", pair, "left", 422, "voter-not-found"),
        (token, pair, "both", 422, "invalid-request"),
        (token, "p" * 41, "left", 422, "invalid-request"),
        (token, "pair\u0000", "left", 422, "invalid-request"),
    ):
        answer = study.vote(voter, which, choice)
        assert (answer.status_code, answer.json()["type"]) == (status, kind), (which, choice)
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert study.vote(token, pair, "left").status_code == 201
    for choice in ("left", "right"):
        again = study.vote(token, pair, choice)
        assert (again.status_code, again.json()["type"]) == (409, "already-voted")
    assert study.get(f"voters/{token}").json()["done"] == 1
    assert study.get("voters/voter-unknown").status_code == 422
    assert study.get("results").json()["votes"] == 1
    for path in (f"pairs/{foreign['pair']['id']}/left", f"pairs/{pair}/top", "pairs/none/left"):
        assert study.get(path).status_code in (404, 422)


def test_of_many_equal_votes_at_once_one_counts(anywhere: Harness) -> None:
    study = Study.of_uploads(anywhere, ("a", "b"), ("dog",))
    ballot = study.join()
    vote = (ballot["voter"], ballot["pair"]["id"], "right")
    with ThreadPoolExecutor(8) as pool:
        codes = sorted(answer.status_code for answer in pool.map(lambda _: study.vote(*vote), range(8)))
    assert codes == [201] + [409] * 7
    with ThreadPoolExecutor(8) as pool:
        voters = list(pool.map(lambda _: study.join()["voter"], range(8)))
    assert len(set(voters)) == 8


@pytest.mark.parametrize("method", ["get", "delete"])
def test_a_study_that_is_not_there(service: Harness, method: str) -> None:
    answer = service.http.request(method, "/v1/studies/none")
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


@pytest.mark.parametrize("path", ["studies/%00", "studies/%00/results", "jobs/%00", "uploads/%00"])
def test_an_id_that_no_database_holds_is_refused(anywhere: Harness, path: str) -> None:
    assert anywhere.http.get(f"/v1/{path}").status_code in (400, 404)


def test_every_route_of_an_unknown_study_is_404(service: Harness) -> None:
    vote = {"voter": "v", "pair": "p", "choice": "left"}
    for method, path, body in (
        *(("GET", path, None) for path in ("results", "votes.csv", "voters/v", "pairs/p/left")),
        *(("POST", path, None) for path in ("voters", "close")),
        ("POST", "votes", vote),
    ):
        answer = service.http.request(method, f"/v1/studies/none/{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (404, "not-found"), path


def clip(**fields: Any) -> Document:
    return {"method": "a", "scene": "s", "upload_id": "in-1", **fields}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"clips": []}, "clips"),
        ({"clips": [clip()]}, "clips"),
        ({"clips": [clip(), clip()]}, "clips.1"),
        ({"clips": [clip(), clip(scene="t", method="b")]}, "clips.0"),
        ({"clips": [clip(), clip(method="b"), clip(scene="t", method="c"), clip(scene="t", method="d")]}, "clips"),
        ({"clips": [clip(method=f"m{number}") for number in range(21)]}, "clips"),
        ({"clips": [clip(scene=f"s{number}") for number in range(201)]}, "clips"),
        ({"clips": [clip(scene=f"s{n // 20}", method=f"m{n % 20}") for n in range(200)]}, "clips"),
        ({"clips": [clip(), clip(method="b", job_id="job-1")]}, "clips.1"),
        ({"clips": [clip(), {"method": "b", "scene": "s"}]}, "clips.1"),
        ({"clips": [clip(), clip(method="=cmd()")]}, "clips.1.method"),
        ({"clips": [clip(), clip(method="")]}, "clips.1.method"),
        ({"clips": [clip(), clip(method="b", extra=1)]}, "clips.1.extra"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"question": "a\u0000b"}, "question"),
        ({"repeats": 21}, "repeats"),
        ({"pairs_per_voter": 0}, "pairs_per_voter"),
    ],
)
def test_studies_that_cannot_be_made(service: Harness, body: Document, field: str) -> None:
    answer = service.http.post("/v1/studies", json={"name": "n", "clips": [clip(), clip(method="b")], **body})
    assert answer.status_code == 422, answer.text
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert service.http.get("/v1/studies").json()["items"] == []


def test_clips_must_be_there_and_finished(service: Harness) -> None:
    def make(**source: str) -> Any:
        body = {"name": "n", "clips": [{"method": method, **source} for method in ("a", "b")]}
        return service.http.post("/v1/studies", json=body)

    waiting, gone, done = service.submit(), service.finished(), service.finished()
    service.http.delete(f"/v1/jobs/{gone['id']}")
    text = service.upload(filename="a.mov")
    for source, status, kind in (
        ({"job_id": "job-unknown"}, 422, "job-not-found"),
        ({"job_id": gone["id"]}, 422, "job-not-found"),
        ({"job_id": waiting["id"]}, 409, "not-finished"),
        ({"job_id": done["id"], "path": "renders/none.mp4"}, 422, "invalid-request"),
        ({"job_id": done["id"], "path": "../log.jsonl"}, 422, "invalid-request"),
        ({"job_id": done["id"], "path": "evaluation/metrics.json"}, 422, "invalid-request"),
        ({"upload_id": "in-unknown"}, 422, "upload-not-found"),
        ({"upload_id": text}, 422, "invalid-request"),
    ):
        answer = make(**source)
        assert (answer.status_code, answer.json()["type"]) == (status, kind), source
        assert answer.json()["errors"][0]["field"].startswith("clips.0"), source
    assert make(job_id=waiting["id"]).json()["retryable"] is True
    made = make(job_id=done["id"])
    assert (made.status_code, made.headers["Location"]) == (201, made.json()["links"]["self"])


def test_what_an_open_study_shows_is_kept(service: Harness) -> None:
    job, upload = service.finished(), service.upload()
    clips = [{"method": "a", "job_id": job["id"]}, {"method": "b", "upload_id": upload}]
    study = Study(service, service.http.post("/v1/studies", json={"name": "n", "clips": clips}).json()["id"], clips)
    ballot = study.join()
    assert {study.http.get(ballot["pair"][side]).content for side in ("left", "right")} == {
        b"video",
        bytes(range(256)) * 400,
    }
    for url in (f"/v1/jobs/{job['id']}", f"/v1/uploads/{upload}"):
        answer = service.http.delete(url)
        assert answer.status_code == 409
        assert "close the study first" in answer.json()["remedy"]
    study.vote(ballot["voter"], ballot["pair"]["id"], "left")
    for _ in range(2):  # repeats are harmless
        assert service.http.post(f"/v1/studies/{study.id}/close").json()["state"] == "closed"
    assert service.http.delete(f"/v1/jobs/{job['id']}").status_code == 202
    assert service.http.delete(f"/v1/uploads/{upload}").status_code == 204
    next_pair = study.get(f"voters/{ballot['voter']}").json()["pair"]
    assert study.http.get(next_pair["left"]).status_code == 404
    for answer in (
        study.vote(ballot["voter"], next_pair["id"], "left"),
        service.http.post(f"/v1/studies/{study.id}/voters"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (409, "study-closed")
    assert study.get("results").json()["votes"] == 1
    assert service.http.delete(f"/v1/studies/{study.id}").status_code == 204
    assert study.get("").status_code == 404


def test_without_ties_voters_must_choose(service: Harness) -> None:
    study = Study.of_uploads(service, ("a", "b"), ("s",), ties=False)
    ballot = study.join()
    answer = study.vote(ballot["voter"], ballot["pair"]["id"], "tie")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "choice")
    empty = study.get("results").json()
    assert (empty["model"], empty["tie_strength"], empty["votes"], empty["agreement"]) == (
        "bradley-terry",
        None,
        0,
        None,
    )
    assert empty["comparisons"][0]["preferred"] is None
    assert "there are no votes yet: the scores say nothing" in empty["notes"]


def test_a_full_study_takes_no_more_voters(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.studies.service.MAX_VOTERS", 2)
    study = Study.of_uploads(service, ("a", "b"), ("s",))
    study.join()
    study.join()
    answer = service.http.post(f"/v1/studies/{study.id}/voters")
    assert (answer.status_code, answer.json()["type"]) == (409, "study-full")


def test_the_list_of_studies_has_pages(service: Harness) -> None:
    made = [Study.of_uploads(service, ("a", "b"), ("s",)).id for _ in range(3)]
    page = service.http.get("/v1/studies?limit=2").json()
    rest = service.http.get("/v1/studies", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert [entry["id"] for entry in page["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert service.http.get("/v1/studies?cursor=no").status_code == 422
