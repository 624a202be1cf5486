"""Studies of uploads whose bytes name their method, and voters who read them there: the API itself does not tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from random import Random
from typing import Any, Self

import httpx
from fastapi.testclient import TestClient

from tests.harness import Document, Harness

TIE_STRENGTH = 0.5


@dataclass
class Study:
    service: Harness
    id: str
    clips: Sequence[Any]

    @classmethod
    def of_uploads(cls, service: Harness, methods: Sequence[str], scenes: Sequence[str], **fields: Any) -> Self:
        uploads = {method: service.upload(method.encode()) for method in methods}
        clips = [
            {"method": method, "scene": scene, "upload_id": upload}
            for scene in scenes
            for method, upload in uploads.items()
        ]
        answer = service.http.post("/v1/studies", json={"name": "Which one?", "clips": clips, **fields})
        assert answer.status_code == 201, answer.text
        return cls(service, answer.json()["id"], [clip["upload_id"] for clip in clips])

    @property
    def http(self) -> TestClient:
        return self.service.http

    def get(self, path: str) -> httpx.Response:
        return self.http.get(f"/v1/studies/{self.id}/{path}".rstrip("/"))

    def join(self) -> Document:
        answer = self.http.post(f"/v1/studies/{self.id}/voters")
        assert answer.status_code == 201, answer.text
        document: Document = answer.json()
        return document

    def vote(self, voter: str, pair: str, choice: str) -> httpx.Response:
        body = {"voter": voter, "pair": pair, "choice": choice}
        return self.http.post(f"/v1/studies/{self.id}/votes", json=body)


@dataclass
class Voter:
    """Prefers as Davidson's model says, with the given scores of the methods."""

    study: Study
    scores: Mapping[str, float]
    random: Random
    choices: list[str] = field(default_factory=list)
    token: str = ""

    def choose(self, pair: Document) -> str:
        worths = []
        for side in ("left", "right"):
            method = self.study.http.get(pair[side]).content.decode()
            worths.append(exp(self.scores[method]))
        weights = (*worths, TIE_STRENGTH * (worths[0] * worths[1]) ** 0.5)
        return self.random.choices(("left", "right", "tie"), weights)[0]


def cast_all(voter: Voter) -> int:
    """Join and vote to the end; how many votes that took."""
    ballot = voter.study.join()
    voter.token = ballot["voter"]
    while pair := ballot["pair"]:
        voter.choices.append(voter.choose(pair))
        answer = voter.study.vote(voter.token, pair["id"], voter.choices[-1])
        assert answer.status_code == 201, answer.text
        ballot = answer.json()
        assert ballot["done"] == len(voter.choices)
    return len(voter.choices)
