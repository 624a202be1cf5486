"""The users of a soak: each submits one job after the other, follows it to its end, and knows how that must be."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.harness import Document, steer

PATIENCE_SECONDS = 60.0  # for one answer
LONGEST_SECONDS = 300.0  # for a job, whatever happens to it
ENDED = ("succeeded", "failed", "cancelled", "expired")
PLANS = {"plain": 9, "crash": 2, "bad": 2, "cancel": 3, "cancel and retry": 3, "delete": 3}


@dataclass
class Order:
    """A job as its user sees it. `ids`: what the same key was answered, ever; `end`: the last state seen."""

    key: str
    plan: str
    ids: set[str] = field(default_factory=set)
    end: str = ""
    retries: int = 0

    @property
    def job_id(self) -> str:
        (job_id,) = self.ids
        return job_id


class User(threading.Thread):
    """Asks again whenever an answer does not come. `error` is what should not have happened."""

    def __init__(self, number: int, seed: int, url: str, receiver: str, closing: threading.Event) -> None:
        super().__init__(name=f"user-{number}")
        self.orders: list[Order] = []
        self.error: BaseException | None = None
        self.repeats = 0  # requests that had to be sent again
        self._url, self._receiver, self._closing = url, receiver, closing
        self._random = random.Random(f"{seed} {number}")
        self._upload_id = ""

    def run(self) -> None:
        try:
            with httpx.Client(base_url=self._url, timeout=20) as self._http:
                while not self._closing.is_set():
                    plan = self._random.choices(list(PLANS), list(PLANS.values()))[0]
                    self.orders.append(Order(f"{self.name}-{len(self.orders)}", plan))
                    self._pursue(self.orders[-1])
        except BaseException as error:
            self.error = error

    def _pursue(self, order: Order) -> None:
        self._submit(order)
        job = f"/v1/jobs/{order.job_id}"
        if order.plan in ("cancel", "cancel and retry", "delete"):
            time.sleep(self._random.uniform(0, 4))
        if order.plan == "delete":
            assert self._ask("DELETE", job).status_code in (202, 410)
            self._until(lambda: self._ask("GET", job).status_code == 410, order)
            order.end = "deleted"
            return
        if order.plan.startswith("cancel"):
            assert self._ask("POST", f"{job}/cancel").status_code in (202, 409)  # 409: it has ended
        end = self._end(order)
        if order.plan == "cancel and retry" and end["state"] == "cancelled":
            end = self._retry(order)
        while end["state"] == "failed" and not (order.plan == "bad" and end["problem"]["type"] == "bad-input"):
            end = self._retry(order)  # faults have used up its attempts
        order.end = end["state"]

    def _submit(self, order: Order) -> None:
        if not self._upload_id or self._random.random() < 0.3:
            body = self._random.randbytes(self._random.randrange(1, 300_000))
            answer = self._ask("POST", "/v1/uploads?filename=a.mp4", content=body)
            assert answer.status_code == 201, answer.text
            self._upload_id = answer.json()["id"]
            self._until(lambda: self._ask("GET", f"/v1/uploads/{self._upload_id}").json()["state"] == "ready", order)
        words = {"steps": self._random.randrange(3, 40), "sleep": 0.1}
        words |= {"crash": {"crash": 1}, "bad": {"fail": 3}}.get(order.plan, {})
        words |= {"deaf": 1} if self._random.random() < 0.1 else {}
        body = {"upload_id": self._upload_id, "preset": "smoke", "settings": steer(**words), "name": order.key}
        if self._random.random() < 0.3:
            body["webhook"] = {"url": f"{self._receiver}/{self.name}"}
        twice = self._random.random() < 0.3
        with ThreadPoolExecutor(2) as pool:
            for answer in pool.map(lambda _: self._posted(order.key, body), range(1 + twice)):
                order.ids.add(answer["id"])
        assert len(order.ids) == 1, f"{order.key} is {order.ids}"

    def _posted(self, key: str, body: Document) -> Document:
        while True:
            answer = self._ask("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
            if answer.status_code != 409:  # its twin is under way
                assert answer.status_code == 202, answer.text
                document: Document = answer.json()
                return document

    def _retry(self, order: Order) -> Document:
        assert self._ask("POST", f"/v1/jobs/{order.job_id}/retry").status_code in (202, 409)  # 409: our lost repeat did
        order.retries += 1
        return self._end(order)

    def _end(self, order: Order) -> Document:
        found: list[Document] = []

        def ended() -> bool:
            answer = self._ask("GET", f"/v1/jobs/{order.job_id}", params={"wait": 2})
            assert answer.status_code == 200, f"{order.job_id} is lost: {answer.text}"
            found[:] = [answer.json()]
            return found[0]["state"] in ENDED

        self._until(ended, order)
        return found[0]

    def _until(self, ask: "object", order: Order) -> None:
        until = time.monotonic() + LONGEST_SECONDS
        while not ask():  # type: ignore[operator]
            assert time.monotonic() < until, f"nothing more happens to {order}"
            time.sleep(0.2)

    def _ask(self, method: str, path: str, **words: "object") -> httpx.Response:
        """One answer, however often it must be asked for: the API may be away, and its database, too."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._http.request(method, path, **words)  # type: ignore[arg-type]
            except httpx.TransportError:
                pass  # killed, frozen, or not started yet
            else:
                if answer.status_code not in (429, 503):
                    assert answer.status_code < 500, answer.text
                    return answer
            assert time.monotonic() < until, f"no answer to {method} {path}"
            self.repeats += 1
            time.sleep(0.2)
