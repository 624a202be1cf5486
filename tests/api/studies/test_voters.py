"""Who may vote, and how often: one vote a pair and person, with and without API keys."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.settings import Settings
from tests.api.studies.voters import Study
from tests.harness import Document, Harness, bearer, harness, make_key


@pytest.fixture(params=["sqlite", "postgres"])
def guarded(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    """The service with API keys, over either database; its client is the owner of all that is made."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else None
    with harness(make_settings(auth="on", database_url=url)) as service:
        service.http.headers.update(bearer(make_key(service.sessions, "owners")))
        yield service


def sign_out(service: Harness) -> None:
    del service.http.headers["Authorization"]


def invited(study: Study, count: int) -> list[str]:
    answer = study.http.post(f"/v1/studies/{study.id}/invitations", json={"count": count})
    assert answer.status_code == 201, answer.text
    voters = [item["voter"] for item in answer.json()["items"]]
    assert [item["page"] for item in answer.json()["items"]] == [f"/#/studies/{study.id}/voters/{v}" for v in voters]
    return voters


def vote_all(study: Study, ballot: Document) -> int:
    """Votes to the end of a ballot; how many."""
    votes = 0
    while pair := ballot["pair"]:
        answer = study.vote(ballot["voter"], pair["id"], "left")
        assert answer.status_code == 201, answer.text
        ballot, votes = answer.json(), votes + 1
    return votes


def test_with_keys_on_a_stranger_cannot_stuff_the_ballot(guarded: Harness) -> None:
    study = Study.of_uploads(guarded, ("a", "b"), ("s",), repeats=0)
    voters = invited(study, 2)
    sign_out(guarded)
    for _ in range(3):
        answer = study.http.post(f"/v1/studies/{study.id}/voters")
        assert (answer.status_code, answer.json()["type"]) == (403, "invitation-needed")
        assert "ask who made the study" in answer.json()["remedy"]
    assert study.http.post(f"/v1/studies/{study.id}/invitations", json={"count": 1}).status_code == 401
    assert study.http.get(f"/v1/studies/{study.id}/results").status_code == 401
    for voter in voters:
        assert vote_all(study, study.get(f"voters/{voter}").json()) == 1
        again = study.get(f"voters/{voter}").json()
        assert (again["done"], again["total"], again["pair"]) == (1, 1, None), "the page of a voter votes once"
    assert study.get("").json()["voters"] == 2


def test_a_key_is_one_voter_in_each_study(guarded: Harness) -> None:
    study, other = (Study.of_uploads(guarded, ("a", "b"), ("s",), repeats=0) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        ballots = list(pool.map(lambda _: study.join(), range(8)))
    assert len({ballot["voter"] for ballot in ballots}) == len({ballot["pair"]["id"] for ballot in ballots}) == 1
    assert vote_all(study, ballots[0]) == 1
    assert study.join()["pair"] is None
    assert other.join()["voter"] != ballots[0]["voter"]
    guarded.http.headers.update(bearer(make_key(guarded.sessions, "others")))
    assert vote_all(study, study.join()) == 1, "whoever has another key is another voter"
    assert study.get("").json()["voters"] == 2


def test_ballots_of_invited_voters_are_drawn_when_they_come(guarded: Harness) -> None:
    """Those who never come take no pair away from others, and who looks twice at once has one ballot."""
    study = Study.of_uploads(guarded, ("a", "b", "c"), ("s",), repeats=0, pairs_per_voter=1)
    voters = invited(study, 30)
    early = study.vote(voters[0], "pair-unknown", "left")
    assert (early.status_code, early.json()["type"]) == (422, "pair-not-found")
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: study.get(f"voters/{voters[0]}").json()["pair"]["id"], range(8)))
    assert len(set(seen)) == 1
    for voter in voters[:3]:
        assert vote_all(study, study.get(f"voters/{voter}").json()) == 1
    met = study.get("results?flagged=true").json()["comparisons"]
    assert [pair["wins"] + pair["losses"] for pair in met] == [1, 1, 1], "each pair was shown once"
    study.http.post(f"/v1/studies/{study.id}/close")
    late = study.get(f"voters/{voters[3]}")
    assert (late.status_code, late.json()["type"]) == (409, "study-closed")
    assert study.http.post(f"/v1/studies/{study.id}/invitations", json={"count": 1}).status_code == 409
    assert study.http.delete(f"/v1/studies/{study.id}").status_code == 204


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 1001}, {"count": "many"}, {"number": 1}, [1]])
def test_invitations_that_cannot_be_made(service: Harness, body: Any) -> None:
    study = Study.of_uploads(service, ("a", "b"), ("s",))
    answer = service.http.post(f"/v1/studies/{study.id}/invitations", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert service.http.post("/v1/studies/none/invitations", json={"count": 1}).status_code == 404


def test_more_invitations_than_a_study_holds(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.studies.service.MAX_VOTERS", 3)
    study = Study.of_uploads(service, ("a", "b"), ("s",))
    invited(study, 2)
    answer = service.http.post(f"/v1/studies/{study.id}/invitations", json={"count": 2})
    assert (answer.status_code, answer.json()["type"]) == (409, "study-full")
    study.join()
    assert study.get("").json()["voters"] == 3


def test_without_keys_everybody_may_join(service: Harness) -> None:
    study = Study.of_uploads(service, ("a", "b"), ("s",))
    assert study.join()["voter"] != study.join()["voter"]
