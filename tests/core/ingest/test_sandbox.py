import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sandbox_victims as victims
from ingest_samples import make_images, make_run, make_video, recording

from dpdy_core.errors import BadInput, BadSettings, Cancelled, JobFailed, OutOfMemory
from dpdy_core.ingest.capture import ingest_capture
from dpdy_core.ingest.inspect import inspect_input
from dpdy_core.ingest.sandbox import SCRATCH, Limits, confined

linux = pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")


@pytest.fixture(autouse=True)
def _victims_can_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(victims.__file__).parent))
    monkeypatch.chdir(tmp_path)


def gone(pid: int) -> bool:
    """Whether no living process has this id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(happened) -> None:
    for _ in range(400):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_call_has_arguments_result_and_events(tmp_path: Path) -> None:
    reporter, events = recording()
    value = confined(victims.double, {"a": [1, "\udcff"]}, Path("here"), reporter)
    assert value == [{"a": [1, "\udcff"]}, str(tmp_path / "here")]
    assert [event.get("message", event.get("step")) for event in events] == [1, "careful", 2]


def test_a_refusal_is_raised_again() -> None:
    with pytest.raises(BadInput, match="green") as caught:
        confined(victims.refuse)
    assert caught.value.remedy == "paint it red"


@linux
def test_no_network_no_programs_few_files() -> None:
    said = confined(victims.attempts)
    assert said.pop("many files") == "OSError"
    assert set(said.values()) == {"PermissionError"}


@linux
@pytest.mark.parametrize(
    ("victim", "limits", "kind", "words"),
    [
        (victims.allocate, Limits(memory=2**31), BadInput, "limit of 2 GiB of memory"),
        (victims.spin, Limits(seconds=1), BadInput, "limit of 1 s"),
        (victims.crash, Limits(), BadInput, "crashed the decoder .SIGSEGV"),
        (victims.killed, Limits(), OutOfMemory, "killed from outside"),
        (victims.terminated, Limits(), OutOfMemory, "killed from outside"),
        (victims.stumble, Limits(), JobFailed, "exit code 1"),
    ],
)
def test_every_death_has_its_words(victim, limits: Limits, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        confined(victim, limits=limits)
    assert caught.value.remedy


def test_a_written_file_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="DPDY_DECODE_FILE_BYTES"):
        confined(victims.write_much, tmp_path, limits=Limits(file_bytes=2**20))
    assert (tmp_path / "big").stat().st_size <= 2**20


def test_what_a_library_prints_is_no_result() -> None:
    assert confined(victims.pretend) == "true"


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_text("x")
    (tmp_path / "secret.png").chmod(0)
    if os.geteuid() == 0 and sys.platform != "linux":
        pytest.skip("only on Linux does the child give up root's right to read every file")
    with pytest.raises(BadInput, match=r"secret\.png may not be read"):
        confined(victims.read, tmp_path / "secret.png")


def test_a_stop_ends_the_whole_group_and_its_files(tmp_path: Path) -> None:
    mark, scratch = tmp_path / "mark", tmp_path / "scratch"
    mark.mkdir()
    scratch.mkdir()
    reporter, _ = recording()

    def stop() -> None:
        wait_until(lambda: len(list(mark.iterdir())) == 2)
        reporter.request_stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Cancelled):
        confined(victims.write_and_wait, mark, reporter=reporter, scratch=scratch)
    stopper.join()
    assert list(scratch.iterdir()) == []
    wait_until(lambda: all(gone(int(path.name)) for path in mark.iterdir()))


@linux
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import sandbox_victims, pathlib
from dpdy_core.ingest.sandbox import confined
confined(sandbox_victims.write_and_wait, pathlib.Path({str(tmp_path)!r}))
"""
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), os.environ["PYTHONPATH"]])
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path, "TMPDIR": "/tmp"})
    wait_until(lambda: len([p for p in tmp_path.iterdir() if p.name.isdecimal()]) == 2)
    child = min(int(p.name) for p in tmp_path.iterdir())
    assert not gone(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(child))
    os.killpg(child, signal.SIGKILL)  # its own fork, which is not told


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPDY_DECODE_SECONDS", "7")
    monkeypatch.setenv("DPDY_DECODE_MEMORY_BYTES", "")
    assert Limits.from_environment() == Limits(seconds=7)
    monkeypatch.setenv("DPDY_DECODE_SECONDS", "soon")
    with pytest.raises(BadSettings, match="DPDY_DECODE_SECONDS"):
        Limits.from_environment()


@linux
def test_a_decoder_without_memory_is_told_as_such(tmp_path: Path) -> None:
    frames = make_images(tmp_path / "frames", 3, 4000, 4000, ".bmp")
    with pytest.raises(BadInput, match="of memory"):
        confined(inspect_input, frames, limits=Limits(memory=100 * 2**20))


def test_ingest_in_the_child_leaves_its_result_alone(tmp_path: Path) -> None:
    run, config = make_run(tmp_path / "run", make_video(tmp_path / "clip.mp4"))
    ingest_capture(run, config, recording()[0])
    assert sorted(path.name for path in run.root.iterdir()) == ["capture", "config.json"]
    assert len(list((run.capture / "images").iterdir())) == 24


def test_ingest_killed_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPDY_DECODE_FILE_BYTES", "300")
    run, config = make_run(tmp_path / "run", make_video(tmp_path / "clip.mp4"))
    (run.root / f"{SCRATCH}old").mkdir()
    with pytest.raises((BadInput, JobFailed)):
        ingest_capture(run, config, recording()[0])
    assert [path.name for path in run.root.iterdir()] == ["config.json"]


def test_the_child_loads_no_torch() -> None:
    code = "import sys, dpdy_core.ingest.capture, dpdy_core.ingest.inspect; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
