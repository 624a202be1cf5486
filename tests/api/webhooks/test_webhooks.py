"""Messages as a receiver sees them: verified by the reference library, sent once per event, again until they arrive."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import trustme
from sqlalchemy import select, update
from standardwebhooks.webhooks import Webhook as Verifier

from api.db.models import Delivery, Job, WebhookSecret, now
from api.jobs import service as jobs
from api.settings import Settings
from api.webhooks import outbox
from api.webhooks.sender import Sender
from api.webhooks.signature import new_secret
from tests.harness import Harness, harness, steer
from tests.receiver import Receiver, receiver


@pytest.fixture
def service(make_settings: Callable[..., Settings]) -> Iterator[Harness]:
    with harness(make_settings(webhook_loopback=True, webhook_retry_seconds=0.001, webhook_tries=4)) as running:
        yield running


@pytest.fixture
def inbox() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def sender(service: Harness, *answers: list[str], context: ssl.SSLContext | None = None) -> Sender:
    """With a name server that gives these answers in turn, the last one for ever."""
    left = list(answers) or [["127.0.0.1"]]
    return Sender(service.settings, service.sessions, lambda *_: left.pop(0) if len(left) > 1 else left[0], context)


def rounds(service: Harness, times: int = 10) -> None:
    """As many rounds as there are tries; what waits for its time is due now."""
    for _ in range(times):
        with service.sessions.begin() as session:
            session.execute(update(Delivery).values(next_try_at=now() - timedelta(seconds=1)))
        if not sender(service).round():
            return


def ran(service: Harness, webhook: object, **words: float) -> dict:
    job = service.submit(steer(**words), webhook=webhook)
    assert service.runner.run(job["id"])
    return service.job(job["id"])


def test_the_reference_library_verifies_what_arrives(service: Harness, inbox: Receiver) -> None:
    job = ran(service, {"url": f"{inbox.url}/hook?a=b", "events": ["job.started", "job.succeeded"]})
    rounds(service)
    assert [message.path for message in inbox.messages] == ["/hook?a=b"] * 2
    secret = service.http.get("/v1/webhooks/secret").json()["secret"]
    bodies = [Verifier(secret).verify(message.body, message.headers) for message in inbox.messages]
    assert [body["type"] for body in bodies] == ["job.started", "job.succeeded"]
    assert bodies[1]["data"] | {"id": job["id"], "state": "succeeded", "attempt": 1} == bodies[1]["data"]
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(new_secret()).verify(inbox.messages[0].body, inbox.messages[0].headers)
    shown = service.job(job["id"])["webhook"]
    assert shown["events"] == ["job.started", "job.succeeded"]
    assert [(d["state"], d["tries"], d["log"][0]["status"]) for d in shown["deliveries"]] == [("delivered", 1, 204)] * 2
    assert secret not in json.dumps(service.job(job["id"]))


def test_a_secret_of_the_job_s_own_and_a_plain_url(service: Harness, inbox: Receiver) -> None:
    secret = new_secret()
    ran(service, {"url": inbox.url, "secret": secret}, fail=3)
    ran(service, inbox.url)
    rounds(service)
    kinds = {json.loads(message.body)["type"]: message for message in inbox.messages}
    assert set(kinds) == {"job.failed", "job.succeeded"}  # by default: how the job ended
    failed = Verifier(secret).verify(kinds["job.failed"].body, kinds["job.failed"].headers)
    assert failed["data"]["problem"]["detail"] == "no parallax"


def test_a_replaced_secret_signs_too_for_a_day(service: Harness, inbox: Receiver) -> None:
    before = service.http.get("/v1/webhooks/secret").json()["secret"]
    after = service.http.post("/v1/webhooks/secret/rotate").json()
    assert after["secret"] != before
    ran(service, inbox.url)
    rounds(service)
    for secret in (before, after["secret"]):
        Verifier(secret).verify(inbox.messages[0].body, inbox.messages[0].headers)
    with service.sessions.begin() as session:
        session.execute(update(WebhookSecret).values(previous_until=now() - timedelta(seconds=1)))
    ran(service, inbox.url)
    rounds(service)
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(before).verify(inbox.messages[1].body, inbox.messages[1].headers)


def test_tries_go_on_under_one_id_to_the_limit(service: Harness, inbox: Receiver) -> None:
    inbox.answers = [500, 302, 503, 404]
    job = ran(service, inbox.url)
    rounds(service)
    assert len(set(inbox.ids())) == 1
    assert len({message.body for message in inbox.messages}) == 1
    [delivery] = service.job(job["id"])["webhook"]["deliveries"]
    assert (delivery["state"], delivery["next_try_at"]) == ("failed", None)
    assert [entry["status"] for entry in delivery["log"]] == [500, 302, 503, 404]

    url = f"/v1/jobs/{job['id']}/webhook/deliveries/{delivery['id']}/resend"
    inbox.answers = [500, 200]
    assert service.http.post(url).json()["state"] == "pending"
    assert service.http.post(url).status_code == 409
    rounds(service)
    assert (len(inbox.messages), len(set(inbox.ids()))) == (6, 1)
    assert service.job(job["id"])["webhook"]["deliveries"][0]["state"] == "delivered"


def test_pauses_grow_and_differ(service: Harness, inbox: Receiver) -> None:
    inbox.answers = [500]
    settings = service.settings.model_copy(update={"webhook_retry_seconds": 5.0, "webhook_tries": 10})
    ran(service, inbox.url)
    pauses = []
    for _ in range(10):
        with service.sessions.begin() as session:
            message = session.scalars(select(Delivery)).one()
            message.next_try_at = now()
        Sender(settings, service.sessions).round()
        with service.sessions() as session:
            pauses.append((session.scalars(select(Delivery)).one().next_try_at - now()).total_seconds())
    for pause, expected in zip(pauses, [5, 20, 80, 320, 1280, 5120, 14400, 14400, 14400], strict=False):
        assert 0.7 * expected < pause < 1.21 * expected
    assert len({round(pause, 3) for pause in pauses[6:9]}) == 3


def test_410_ends_it(service: Harness, inbox: Receiver) -> None:
    inbox.answers = [410]
    job = ran(service, {"url": inbox.url, "events": ["job.started", "job.succeeded"]})
    rounds(service)
    shown = service.job(job["id"])["webhook"]
    assert len(inbox.messages) == 1
    assert [delivery["state"] for delivery in shown["deliveries"]] == ["gone", "gone"]
    assert shown["gone_at"]
    inbox.answers = [200]
    tested = service.http.post(f"/v1/jobs/{job['id']}/webhook/test")
    assert (tested.status_code, tested.json()["type"]) == (202, "webhook.test")
    sender(service).round()
    assert inbox.ids()[1:] == [tested.json()["id"]]
    assert service.job(job["id"])["webhook"]["gone_at"] is None


def test_nobody_can_point_a_name_elsewhere_between_two_tries(service: Harness, inbox: Receiver) -> None:
    """The name is asked once a try, the address of that answer is used, and the next answer is checked anew."""
    inbox.answers = [500]
    port = inbox.url.rpartition(":")[2]
    job = ran(service, f"http://rebinding.invalid:{port}/")  # a name that the system cannot resolve
    rebinding = sender(service, ["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["::ffff:127.0.0.1"])
    for _ in range(4):
        with service.sessions.begin() as session:
            session.execute(update(Delivery).values(next_try_at=now() - timedelta(seconds=1)))
        rebinding.round()
    assert len(inbox.messages) == 1
    assert inbox.messages[0].headers["host"] == f"rebinding.invalid:{port}"
    [delivery] = service.job(job["id"])["webhook"]["deliveries"]
    assert [(e["status"], e["error"]) for e in delivery["log"]] == [
        (500, None),
        *[(None, "refused: its address is not a public one")] * 3,
    ]
    assert "169.254" not in json.dumps(service.job(job["id"]))


def test_tls_is_checked_against_the_name(service: Harness) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("receiver.test").configure_cert(server)
    authority.configure_trust(client)
    with receiver(context=server) as inbox:
        port = inbox.url.rpartition(":")[2]
        for host in ("receiver.test", "impostor.test"):
            ran(service, f"https://{host}:{port}/")
        sender(service, ["127.0.0.1"], context=client).round()
        assert [message.headers["host"] for message in inbox.messages] == [f"receiver.test:{port}"]
    with service.sessions() as session:
        errors = [message.log[0]["error"] for message in session.scalars(select(Delivery)).all()]
    assert sorted(errors, key=str) == [None, "its certificate is not valid"] or errors == [
        "its certificate is not valid",
        None,
    ]


def test_of_many_senders_one_sends(service: Harness, inbox: Receiver) -> None:
    for _ in range(3):
        ran(service, inbox.url)
    threads = [threading.Thread(target=sender(service).round) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inbox.messages) == len(set(inbox.ids())) == 3


def test_a_sender_that_dies_after_its_claim_loses_nothing(service: Harness, inbox: Receiver) -> None:
    ran(service, inbox.url)
    with service.sessions.begin() as session:
        [(message, _)] = outbox.due(session)
        assert outbox.claim(session, message)
    assert sender(service).round() == 0  # it is held
    rounds(service)
    assert len(inbox.messages) == 1
    with service.sessions.begin() as session:  # the first sender was only slow: its end comes too late
        assert outbox.conclude(session, message, 500, None, 1.0, service.settings) is None


def test_a_message_is_written_with_its_change_or_not_at_all(service: Harness, inbox: Receiver) -> None:
    job = service.submit(webhook=inbox.url)
    with service.sessions() as session:
        row = session.get_one(Job, job["id"])
        jobs.request_cancel(session, row)
        assert session.scalars(select(Delivery)).all()
        session.rollback()
    with service.sessions() as session:
        assert session.scalars(select(Delivery)).all() == []
        assert session.get_one(Job, job["id"]).state == "queued"


def test_a_deleted_job_sends_nothing_and_keeps_no_receiver(service: Harness, inbox: Receiver) -> None:
    job = ran(service, inbox.url)
    assert service.http.delete(f"/v1/jobs/{job['id']}").status_code == 202
    rounds(service)
    assert inbox.messages == []
    assert service.http.get(f"/v1/jobs/{job['id']}/webhook").status_code == 410


def test_the_body_stays_thin_whatever_the_job_says(service: Harness, inbox: Receiver) -> None:
    job = ran(service, inbox.url, fail=3)
    rough = "\x01" * 100_000
    problem = dict.fromkeys(("type", "title", "detail", "remedy", "more"), rough)
    with service.sessions.begin() as session:
        row = session.get_one(Job, job["id"])
        row.name, row.problem = "\U0001f600" * 200, problem
        body = outbox.note_test(session, row).body
    assert len(body.encode()) < 20_000
    json.loads(body)


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ("http://receiver.example/", "webhook.url"),
        ("https://10.0.0.1/", "webhook.url"),
        ({"url": "https://receiver.example:22/"}, "webhook.url"),
        ({"url": "https://receiver.example/", "events": ["job.exploded"]}, "webhook.events.0"),
        ({"url": "https://receiver.example/", "events": []}, "webhook.events"),
        ({"url": "https://receiver.example/", "secret": "password"}, "webhook.secret"),
        ({"url": "https://receiver.example/", "secret": "whsec_c2hvcnQ="}, "webhook.secret"),
        ({"url": "https://receiver.example/", "more": 1}, "webhook.more"),
        (7, "webhook"),
    ],
)
def test_refused_receivers(make_settings: Callable[..., Settings], webhook: object, field: str) -> None:
    with harness(make_settings()) as service:
        answer = service.http.post("/v1/jobs", json={"upload_id": service.upload(), "webhook": webhook})
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [field]
        assert service.http.get("/v1/jobs").json()["items"] == []


def test_a_job_without_a_webhook(service: Harness) -> None:
    job = service.submit()
    assert job["webhook"] is None
    assert service.http.get(f"/v1/jobs/{job['id']}/webhook").json()["type"] == "no-webhook"
    assert service.http.post(f"/v1/jobs/{job['id']}/webhook/test").status_code == 404
