"""`dpdy vote` against the real API."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from api.client import vote
from api.client.client import DpdyClient
from dpdy_core.command import run_command
from tests.api.studies.voters import Study
from tests.harness import Harness

Dpdy = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dpdy(service: Harness, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dpdy:
    """Runs `dpdy vote` with arguments and keys; exit code, standard output and error."""

    def pass_on(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        answer = service.http.request(request.method, path, content=request.read(), headers=dict(request.headers))
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    monkeypatch.setattr(vote, "DpdyClient", partial(DpdyClient, transport=httpx.MockTransport(pass_on), patience=0.0))

    def run(*arguments: str | Path, keys: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(keys))
        code = run_command(vote.app, ["vote", *map(str, arguments)], "dpdy")
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_study_from_a_job_a_run_folder_and_a_video(dpdy: Dpdy, service: Harness, tmp_path: Path) -> None:
    job = service.finished()["id"]
    render = tmp_path / "run" / "renders" / "orbit.mp4"
    render.parent.mkdir(parents=True)
    render.write_bytes(b"of a run folder")
    (tmp_path / "rival.webm").write_bytes(b"of a rival")
    clips = [f"--clip=ours={job}", f"--clip=mine={tmp_path / 'run'}", f"--clip=rival={tmp_path / 'rival.webm'}"]
    code, out, err = dpdy("--new", "Park", *clips, f"--clip=again={job}/renders/orbit.mp4")
    assert code == 0, err
    study = Study(service, out.strip(), [])
    assert f"voters open http://127.0.0.1:8000/#/studies/{study.id}" in err
    assert [row["method"] for row in study.get("results").json()["methods"]] == ["again", "mine", "ours", "rival"]
    assert study.get("").json()["question"] == "Which of the two looks better?"
    code, out, _ = dpdy()
    assert code == 0
    assert all(word in out for word in (study.id, "Park", "open"))


def test_voting_stops_goes_on_and_ends_in_results(dpdy: Dpdy, service: Harness, tmp_path: Path) -> None:
    study = Study.of_uploads(service, ("a", "b", "c"), ("s",)).id
    code, out, err = dpdy(study, keys="l\nwhat\nTIE\nq\n")
    assert (code, out) == (0, "2 of 5 pairs judged\n")
    assert err.count("[t]ie or [q]uit?") == 4
    assert f"pair 2 of 5\n  left   http://127.0.0.1:8000/v1/studies/{study}/pairs/pair-" in err
    voter = err.split("--voter ")[1].split("`")[0]
    code, out, _ = dpdy(study, "--voter", voter, "--json", keys="right\n" * 3)
    assert (code, json.loads(out)) == (0, {"voter": voter, "done": 5, "total": 5, "pair": None})
    code, out, _ = dpdy(study, "--results", "--flagged")
    assert code == 0
    assert "3 votes, 1 voters" in out
    assert "half a vote is added" in out
    code, out, _ = dpdy(study, "--results", "--flagged", "--json")
    assert (code, json.loads(out)["votes"]) == (0, 3)
    assert dpdy(study, "--csv", tmp_path / "v.csv")[0] == 0
    assert len((tmp_path / "v.csv").read_text().splitlines()) == 6
    assert dpdy(study, "--close")[:2] == (0, f"{study}  closed\n")
    code, _, err = dpdy(study, "--voter", voter)
    assert code == 0  # nothing is left to judge
    code, _, err = dpdy(study)
    assert (code, "was closed at" in err) == (2, True)
    assert dpdy(study, "--delete")[0] == 0
    code, _, err = dpdy(study, "--results")
    assert (code, f"there is no study '{study}'" in err) == (2, True)


def test_invited_voters_get_a_page_each_and_vote_by_it(dpdy: Dpdy, service: Harness) -> None:
    study = Study.of_uploads(service, ("a", "b"), ("s",), repeats=0).id
    code, out, _ = dpdy(study, "--invite", "2")
    assert code == 0
    pages = out.splitlines()
    assert len(set(pages)) == 2
    assert all(page.startswith(f"http://127.0.0.1:8000/#/studies/{study}/voters/voter-") for page in pages)
    code, out, _ = dpdy(study, "--voter", pages[0].rpartition("/")[2], keys="l\n")
    assert (code, out) == (0, "1 of 1 pairs judged\n")
    code, out, _ = dpdy(study, "--invite", "1", "--json")
    assert (code, set(json.loads(out)["items"][0])) == (0, {"voter", "page"})


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--results"], 2, "which study?"),
        (["--invite", "3"], 2, "which study?"),
        (["study-1", "--invite", "3", "--close"], 2, "only one of"),
        (["study-1", "--invite", "0"], 2, "--invite"),
        (["study-1", "--new", "n"], 2, "--new takes no STUDY"),
        (["study-1", "--results", "--close"], 2, "only one of"),
        (["study-1", "--clip", "a=b"], 2, "--clip belongs to a new study"),
        (["--new", "n", "--clip", "nonsense"], 2, "METHOD[:SCENE]=SOURCE"),
        (["--new", "n", "--clip", "a=missing.mp4"], 3, "neither a file, a run folder nor a job"),
        (["--new", "n", "--clip", "a=."], 3, "dpdy render . --path orbit"),
        (["--new", "n"], 2, "clips"),
        (["--new", "n", "--clip", "a=job-1", "--clip", "b=job-1"], 2, "there is no job 'job-1'"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    dpdy: Dpdy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, _, err = dpdy(*arguments)
    assert ended == code, err
    assert said in err
