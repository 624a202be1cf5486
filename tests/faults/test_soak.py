"""Many users, a few workers, and a random fault every few seconds, for minutes or for half an hour (F34).

`SOAK_SEED=N` repeats the same order of faults and requests; when each of them meets which process is not repeated.
"""

import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, make_url, select

from api.db.models import Delivery, Job
from api.db.session import make_engine, make_sessions
from api.jobs.files import make_files
from api.settings import Settings
from dpdy_core.rundir import read_json
from tests.faults.soak.damage import Damage
from tests.faults.soak.members import running
from tests.faults.soak.users import Order, User
from tests.production import Production, make_production
from tests.receiver import Receiver, receiver
from tests.servers import free_port, own_postgres, wait_for, wait_ready
from worker import garbage

USERS = 6
ENDS = {  # how a job may end, by its plan; a cancellation may come too late
    "plain": {"succeeded"},
    "crash": {"succeeded"},
    "bad": {"failed"},
    "cancel": {"cancelled", "succeeded"},
    "cancel and retry": {"succeeded"},
    "delete": {"deleted"},
}
VARIABLES = {
    "DPDY_WEBHOOK_LOOPBACK": "true",
    "DPDY_WEBHOOK_RETRY_SECONDS": "0.5",
    "DPDY_STALL_SECONDS": "8",
    "DPDY_GRACE_SECONDS": "2",
}


def soak(seconds: float, folder: Path, note: Callable[[str], None]) -> str:
    """Do it, and check what must hold; a summary in words."""
    seed = int(os.environ.get("SOAK_SEED") or secrets.randbelow(10**6))  # other tests seed `random`
    note(f"\nsoak of {seconds:g} s with SOAK_SEED={seed}\n")
    began = time.monotonic()
    history = (folder / "faults.log").open("w")
    ports = free_port(), free_port()
    url, closing = f"http://127.0.0.1:{ports[0]}", threading.Event()
    with history, own_postgres() as postgres, receiver() as hears:
        fleet = make_production(postgres.url, f"redis://127.0.0.1:{ports[1]}/0", folder / "data", **VARIABLES)
        users = [User(number, seed, url, hears.url, closing) for number in range(USERS)]
        with running(fleet, postgres, ports, folder) as members:
            assert members.api.process is not None
            members.api.process.log = members.api.log  # type: ignore[attr-defined]
            wait_ready(url, members.api.process)

            def tell(what: str) -> None:
                history.write(f"{time.monotonic() - began:8.2f}  {what}\n")
                history.flush()

            damage = Damage(members, seed, tell)
            for user in users:
                user.start()
            try:
                damage.go_on(seconds)
            finally:
                closing.set()
                for user in users:
                    user.join()
            assert [user.error for user in users if user.error] == [], f"SOAK_SEED={seed}, see {folder}"
            orders = [order for user in users for order in user.orders]
            nothing_is_lost_or_doubled(fleet, orders)
            every_message_arrived(fleet, hears)
        no_process_is_left(fleet)
        only_scraps_are_left(fleet)
        assert [f"{found.rule}: {found.subject} {found.detail}" for found in fleet.violations()] == []
    faults = sum(damage.done.values())
    retries, repeats = sum(order.retries for order in orders), sum(user.repeats for user in users)
    attempts = sum(len(list(fleet.run(order.job_id).glob("starts/*.json"))) for order in orders)
    summary = (
        f"{len(orders)} jobs, {faults} faults, {attempts} attempts of what is kept, {retries} retries by users,"
        f" {repeats} requests sent again, {len(hears.messages)} webhook messages; seed {seed}"
    )
    note(f"{summary}\n{dict(damage.done)}\n{dict(Counter(order.plan for order in orders))}\n")
    return summary


def nothing_is_lost_or_doubled(fleet: Production, orders: list[Order]) -> None:
    """Each key is one job, no job is without a key, each ended as its user meant it, none began anew."""
    engine = make_engine(make_url(fleet.environment["DPDY_DATABASE_URL"]))
    with make_sessions(engine)() as session:
        rows = {job.id: job for job in session.scalars(select(Job))}
    engine.dispose()
    assert len(rows) == len(orders)
    for order in orders:
        job = rows[order.job_id]
        assert job.name == order.key
        assert order.end in ENDS[order.plan], order
        assert order.end == ("deleted" if job.deleted_at else job.state), order
        starts = sorted(fleet.run(job.id).glob("starts/*.json"), key=lambda path: int(path.stem))
        firsts = [read_json(path)["first"] for path in starts]
        assert firsts == sorted(firsts), f"{job.id} began anew: {firsts}"


def every_message_arrived(fleet: Production, hears: Receiver) -> None:
    engine = make_engine(make_url(fleet.environment["DPDY_DATABASE_URL"]))
    sessions = make_sessions(engine)

    def pending() -> int:
        with sessions() as session:
            return session.scalar(select(func.count()).where(Delivery.state == "pending")) or 0

    wait_for(lambda: not pending(), 40)
    with sessions() as session:
        messages = {message.id: message for message in session.scalars(select(Delivery))}
    engine.dispose()
    assert {message.state for message in messages.values()} <= {"delivered"}
    came = {message.headers["webhook-id"]: message.body for message in hears.messages}
    assert {name: came.get(name) for name in messages} == {name: message.body for name, message in messages.items()}


def no_process_is_left(fleet: Production) -> None:
    """Neither in our folders nor with our variables."""
    mine = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(fleet.data) in words:
            mine.append(words)
    assert mine == []


def only_scraps_are_left(fleet: Production) -> None:
    """Of an API that was killed within an upload or its check, `dpdy admin gc` finds what is left, and no more."""
    settings = Settings(  # type: ignore[call-arg]
        _env_file=None,
        database_url=fleet.environment["DPDY_DATABASE_URL"],
        storage_url=fleet.environment["DPDY_STORAGE_URL"],
        min_free_bytes=0,
    )
    files = make_files(settings)
    for path in (*files.uploads.iterdir(), *files.root.glob(".check.*")):
        os.utime(path, (0, 0))
    engine = make_engine(settings.database)
    waste = garbage.collect(make_sessions(engine), files, settings, dry_run=False)
    engine.dispose()
    assert [found for found in waste if not re.fullmatch(r"uploads/upl-\w+\.part|\.check\.\w+", found.name)] == []


@pytest.fixture
def note(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def write(text: str) -> None:
        with capsys.disabled():
            os.write(2, text.encode())  # what 1 is in one of several processes goes nowhere

    return write


@pytest.mark.slow
def test_minutes_of_random_faults(tmp_path: Path, note: Callable[[str], None]) -> None:
    """The short form."""
    soak(90, tmp_path, note)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.fault("F34")
def test_half_an_hour_of_random_faults(
    tmp_path: Path, note: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    """Half an hour of random faults every few seconds on all processes: nothing lost, nothing doubled."""
    summary = soak(1800, tmp_path, note)
    record_property("measured", summary)
    assert int(summary.split()[0]) >= 200
