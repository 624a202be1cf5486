"""The calls of user studies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.client.client import Document, DpdyClient
from dpdy_core.errors import BadInput, BadSettings


def create_study(client: DpdyClient, name: str, clips: Sequence[Document], **fields: Any) -> Document:
    """Make a study of `clips`: method, scene, and job_id with path, or upload_id."""
    return _json(client, "POST", "/studies", json={"name": name, "clips": list(clips), **fields})


def list_studies(client: DpdyClient, limit: int = 20) -> Document:
    """The newest studies: `{items, next_cursor}`."""
    return _json(client, "GET", "/studies", params={"limit": limit})


def get_study(client: DpdyClient, study_id: str) -> Document:
    """A study as its voters may see it."""
    return _json(client, "GET", f"/studies/{study_id}")


def join_study(client: DpdyClient, study_id: str) -> Document:
    """The ballot of a new voter, with an API key always of the same; its `voter` is needed for all that follows."""
    return _json(client, "POST", f"/studies/{study_id}/voters")


def invite_voters(client: DpdyClient, study_id: str, count: int) -> Document:
    """Pages of so many voters, one a person: `{items: [{voter, page}]}`."""
    return _json(client, "POST", f"/studies/{study_id}/invitations", json={"count": count})


def get_ballot(client: DpdyClient, study_id: str, voter: str) -> Document:
    """Where a voter stands, and the pair to judge next."""
    return _json(client, "GET", f"/studies/{study_id}/voters/{voter}")


def cast_vote(client: DpdyClient, study_id: str, voter: str, pair: str, choice: str) -> Document:
    """Vote `left`, `right` or `tie`; the ballot that follows."""
    return _json(client, "POST", f"/studies/{study_id}/votes", json={"voter": voter, "pair": pair, "choice": choice})


def study_results(client: DpdyClient, study_id: str, flagged: bool = False) -> Document:
    """Scores, intervals and agreement; with `flagged`, also of voters who contradict themselves."""
    return _json(client, "GET", f"/studies/{study_id}/results", params={"flagged": flagged})


def votes_csv(client: DpdyClient, study_id: str) -> str:
    """Every vote, one a line."""
    return client.request("GET", f"/studies/{study_id}/votes.csv").text


def close_study(client: DpdyClient, study_id: str) -> Document:
    """Take no more votes."""
    return _json(client, "POST", f"/studies/{study_id}/close", repeat=True)


def delete_study(client: DpdyClient, study_id: str) -> None:
    """Remove a study with its votes."""
    client.request("DELETE", f"/studies/{study_id}")


def read_clip(text: str, path: str) -> tuple[Document, Path | None]:
    """A clip from `METHOD[:SCENE]=SOURCE`, and the video to upload for it if its source is on this machine.

    SOURCE is a job's id, which may be followed by `/` and an artifact; a video file; or a run folder. `path` names the
    camera path of jobs and run folders. Raises BadSettings for other text, BadInput for a run without that render.
    """
    names, _, source = text.partition("=")
    method, _, scene = names.partition(":")
    if not method or not source:
        raise BadSettings(f"{text!r} is not METHOD[:SCENE]=SOURCE", "write for example ours:dog=job-12ab")
    clip = {"method": method} | ({"scene": scene} if scene else {})
    local = Path(source)
    if local.is_dir():
        local = local / "renders" / f"{path}.mp4"
        if not local.is_file():
            raise BadInput(f"{local} does not exist", f"make it with `dpdy render {source} --path {path}`")
    if local.is_file():
        return clip, local
    job_id, _, artifact = source.partition("/")
    if not job_id.startswith("job-"):
        raise BadInput(f"{source} is neither a file, a run folder nor a job", "check the path, or see `dpdy list`")
    return {**clip, "job_id": job_id, "path": artifact or f"renders/{path}.mp4"}, None


def _json(client: DpdyClient, method: str, path: str, **options: Any) -> Document:
    document: Document = client.request(method, path, **options).json()
    return document
