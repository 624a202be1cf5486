"""`make demo`: the whole story on one machine, over REST, as a user would live it.

Starts the embedded service, makes a capture, uploads it, follows the job, fetches the videos, stops the service.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx
import typer

from api.client.cli import follow, show_results
from api.client.client import DpdyClient
from api.client.display import Display, clock
from dpdy_core.command import run_command
from dpdy_core.errors import BadSettings, DpdyError
from dpdy_core.presets import parse_assignments

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

START_SECONDS = 60.0
STOP_SECONDS = 40.0
OWN_PLACE = ("DPDY_DATABASE_URL", "DPDY_BROKER_URL", "DPDY_STORAGE_URL")  # the demo never writes into a real service


class DemoFailed(DpdyError):
    """A part of the demo did not do what it should."""

    type = "demo-failed"
    title = "The demo failed"

    def __init__(self, detail: str, remedy: str, exit_code: int = 4) -> None:
        super().__init__(detail, remedy)
        self.exit_code = exit_code


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, capture and results.")] = Path("demo-out"),
    preset: Annotated[str, typer.Option()] = "smoke",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    capture: Annotated[
        Path | None, typer.Option(help="Your own video or capture instead of the synthetic one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a moving scene, send it to a service started for it, and fetch the novel views.

    Example: python -m worker.demo --out demo-out
    """
    started = time.monotonic()
    overrides = parse_assignments(settings or [])
    folder = fresh_folder(out)
    results = folder / "results"
    with service(folder) as server, DpdyClient(server, os.environ.get("DPDY_API_KEY"), patience=20.0) as client:
        with Display() as display:
            display.say(f"the service runs on {server} (log: {folder / 'service.log'})")
            capture = capture or make_capture(folder / "capture", display)
            upload = client.upload(capture, lambda done, total: display.transfer("upload", done, total))
            client.wait_upload(upload["id"])
            job = client.submit(upload["id"], preset, overrides, name=f"demo: {capture.name}")
            display.say(f"job {job['id']}: watch it at {server}/#/jobs/{job['id']}")
        job, files = follow(client, job["id"], results)
    if not any(file.suffix == ".mp4" for file in files):
        raise DemoFailed(f"job {job['id']} succeeded without a single video", f"see {folder / 'service.log'}")
    if not job["metrics"]:
        raise DemoFailed(f"job {job['id']} succeeded without metrics", f"see {folder / 'service.log'}")
    show_results(job, files, as_json)
    Display().say(f"done in {clock(time.monotonic() - started)}; the report is {results / 'report.html'}")


def fresh_folder(out: Path) -> Path:
    """A new folder in `out`, named by the time."""
    folder = out.resolve() / datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadSettings(f"{folder} cannot be made: {error.strerror}", "give another --out") from error
    return folder


def make_capture(folder: Path, display: Display) -> Path:
    """The synthetic capture: one moving camera, a moving thing, held-out views with true depth."""
    display.say(f"making a synthetic capture in {folder}")
    made = subprocess.run([sys.executable, "-m", "dpdy_core", "synth", str(folder)], stderr=subprocess.PIPE, text=True)
    if made.returncode:
        raise DemoFailed(
            f"`dpdy synth` ended with exit code {made.returncode}: {made.stderr.strip()[-500:]}",
            "run it again with --debug",
            made.returncode if made.returncode > 0 else 4,
        )
    return folder


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """The embedded service with all its data in `folder`; its URL. Stopped when the block ends, however it ends."""
    log = folder / "service.log"
    environment = os.environ | dict.fromkeys(OWN_PLACE, "") | {"DPDY_DATA": str(folder / "data")}
    command = [sys.executable, "-m", "dpdy", "serve", "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as output:
        # a group of its own: Ctrl-C reaches this process, which then stops the service in order
        child = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        yield wait_ready(child, log)
    except BaseException:
        stop(child, log)
        raise
    if not stop(child, log):
        raise DemoFailed("the service did not stop cleanly", f"see {log}")


def wait_ready(child: subprocess.Popen[bytes], log: Path) -> str:
    """The URL of the service as soon as it can take and run jobs."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        found = re.search(r"serving on (http://\S+?),", log.read_text(errors="replace"))
        if found and _ready(found[1]):
            return found[1]
        time.sleep(0.2)
    reason = f"ended with exit code {child.returncode}" if child.poll() is not None else "is not ready"
    last = log.read_text(errors="replace").strip()[-1000:]
    raise DemoFailed(f"the service {reason}:\n{last}", f"the whole log is {log}", 6)


def _ready(server: str) -> bool:
    try:
        return httpx.get(f"{server}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stop(child: subprocess.Popen[bytes], log: Path) -> bool:
    """Ask the service to stop; kill it if it does not. True if it went as asked."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode == 0 and "Traceback" not in log.read_text(errors="replace")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # so that the service is stopped however we are
        signal.signal(number, _interrupt)
    sys.exit(run_command(app, None, "python -m worker.demo"))
