"""The render stage on a scene known in closed form."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings, Cancelled
from dpdy_core.ingest.clip import load_clip, read_transforms, write_transforms
from dpdy_core.output.views import capture_fps, render_path, render_views
from dpdy_core.progress import Event, Reporter, read_events
from dpdy_core.rundir import RunDir, read_json

MakeRun = Callable[[int], RunDir]
NAMES = ["input", "stabilised", "bullet-time", "orbit", "test"]


def frames_of(video: Path) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_path_has_three_videos_a_poster_and_a_record(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(3)
    render_views(run, config, reporter)
    lengths = {"input": 6, "stabilised": 6, "bullet-time": 6, "orbit": 6, "test": 3}
    for name in NAMES:
        for part in ("", "_depth", "_invented"):
            assert frames_of(run.renders / f"{name}{part}.mp4").shape == (lengths[name], 36, 48, 3)
        assert (run.previews / f"{name}.jpg").exists()
        assert read_json(run.renders / f"{name}.json")["fps"] == 12.0
    steps = [e for e in read_events(run.events_file) if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 28))
    assert {e["total"] for e in steps} == {27}
    assert not [p for p in run.renders.iterdir() if "partial" in p.name]


def test_input_shows_the_scene_and_invented_only_what_no_frame_saw(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(3)
    render_views(run, config, reporter)
    clip = load_clip(run.capture, "train", 512)
    assert clip is not None
    truth = clip.images.numpy()
    around = np.ones((5, 5), np.uint8)
    plain = np.stack([(cv2.dilate(t, around) == cv2.erode(t, around)).all(axis=-1) for t in truth])
    shown = frames_of(run.renders / "input.mp4")
    error = np.abs(shown.astype(int) - truth.astype(int))[plain]  # 4:2:0 halves the colour resolution at edges
    assert plain.mean() > 0.02
    assert error.mean() < 5
    assert (frames_of(run.renders / "input_invented.mp4") > 127).mean() < 0.02
    invented = frames_of(run.renders / "test_invented.mp4")[..., 0] > 127
    # Wall columns right of the rightmost training camera's view: x > 0.2 + 4 * 24 / 40 seen from x = 0.9 at depth 4.
    border = (0.2 + 4.0 * 24 / 40 - 0.9) / 4.0 * 40 + 24
    assert invented[1, 2:10, int(border) + 2 :].all()
    assert not invented[1, 6:12, 20 : int(border) - 1].any()


def test_finished_paths_are_kept_and_unfinished_ones_made_again(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(0)
    stopping = Reporter()
    stopping.start("render")
    stopping.add_sink(lambda e: stopping.request_stop() if e["event"] == "preview" else None)
    with pytest.raises(Cancelled):
        render_views(run, config, stopping)
    made = run.renders / "input.mp4"
    assert [p.name for p in run.renders.glob("*.mp4")].count("input.mp4") == 1
    assert not (run.renders / "stabilised.mp4").exists()
    assert not list(run.renders.glob(".*"))
    before = made.stat().st_mtime_ns
    render_views(run, config, reporter)
    assert made.stat().st_mtime_ns == before
    assert (run.renders / "orbit.mp4").exists()
    steps = [e["step"] for e in read_events(run.events_file) if e["event"] == "step"]
    assert steps == list(range(7, 25))


def test_another_scene_is_rendered_again(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(0)
    render_views(run, config, reporter)
    before = (run.renders / "input.mp4").stat().st_mtime_ns
    run.mark_done("scene", "def")
    render_views(run, config, reporter)
    assert (run.renders / "input.mp4").stat().st_mtime_ns > before


def test_without_test_views_the_path_test_is_left_out_with_a_warning(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(0)
    render_views(run, config, reporter)
    assert not (run.renders / "test.mp4").exists()
    assert any(e["event"] == "warning" and "test" in e["message"] for e in read_events(run.events_file))


def test_two_renders_of_one_path_are_equal_bit_for_bit(
    make_run: MakeRun, config: RunConfig, reporter: Reporter, tmp_path: Path
) -> None:
    run = make_run(0)
    first = render_path(run, config, "orbit", None, None, tmp_path / "a.mp4", reporter)
    second = render_path(run, config, "orbit", None, None, tmp_path / "b.mp4", reporter)
    assert [p.name for p in first] == ["a.mp4", "a_depth.mp4", "a_invented.mp4"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_width_keeps_the_aspect_and_sizes_are_even(make_run: MakeRun, config: RunConfig, reporter: Reporter) -> None:
    run = make_run(0)
    colour, _, _ = render_path(run, config, "stabilised", 4.0, 71, None, reporter)
    assert colour == run.renders / "stabilised.mp4"
    assert frames_of(colour).shape == (2, 54, 72, 3)  # 0.5 s at 4 fps; 71 -> 72, 72 * 36 / 48 = 54


def test_a_camera_path_file_is_rendered_under_its_name(
    make_run: MakeRun, config: RunConfig, reporter: Reporter, tmp_path: Path
) -> None:
    run = make_run(0)
    pose = [1, 0, 0, 0.05, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    frames = [{"camera_to_world": pose, "fov": 40, "aspect": 1.5, "render_time": t} for t in (0, 1)]
    file = tmp_path / "my path!.json"
    file.write_text(json.dumps({"camera_path": frames, "render_width": 33, "render_height": 22, "fps": 5}))
    colour, _, _ = render_path(run, config, str(file), None, None, None, reporter)
    assert colour.name == "my-path.mp4"
    shown = frames_of(colour)
    assert shown.shape == (2, 22, 32, 3)
    red = (shown[..., 0] > 150) & (shown[..., 1] < 120)
    columns = [np.nonzero(r)[1].mean() for r in red]
    assert read_json(run.renders / "my-path.json")["fps"] == 5  # the file's own; an explicit one wins
    render_path(run, config, str(file), 7.0, None, None, reporter)
    assert read_json(run.renders / "my-path.json")["fps"] == 7
    assert columns[0] < 12 < 20 < columns[1]  # the ball is left at time 0 and right at time 1


@pytest.mark.parametrize("name", ["spiral", "missing.json"])
def test_an_unknown_path_is_refused_before_anything_is_rendered(
    make_run: MakeRun, config: RunConfig, reporter: Reporter, name: str
) -> None:
    run = make_run(0)
    wanted = config.model_copy(update={"render": config.render.model_copy(update={"paths": ("input", name)})})
    with pytest.raises(BadInput, match=name):
        render_views(run, wanted, reporter)
    assert not run.renders.exists()


def test_out_must_be_an_mp4(make_run: MakeRun, config: RunConfig, reporter: Reporter, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="mp4"):
        render_path(make_run(0), config, "orbit", None, None, tmp_path / "a.gif", reporter)


def test_previews_are_announced(make_run: MakeRun, config: RunConfig) -> None:
    run = make_run(0)
    events: list[Event] = []
    reporter = Reporter(events.append)
    render_views(run, config, reporter)
    announced = [e["path"] for e in events if e["event"] == "preview"]
    assert announced == [f"renders/previews/{n}.jpg" for n in ("input", "stabilised", "bullet-time", "orbit")]


def test_held_out_cameras_are_shown_one_after_the_other(
    make_run: MakeRun, config: RunConfig, reporter: Reporter
) -> None:
    run = make_run(4)
    document = read_transforms(run.capture)
    for i, frame in enumerate(document["frames"][6:]):  # two cameras that film at the same two times
        frame["time"] = float(i % 2)
        frame["transform_matrix"][1][3] = 0.5 if i < 2 else -0.5
    write_transforms(run.capture, document)
    render_path(run, config, "test", None, None, None, reporter)
    shown = read_json(run.renders / "test.json")["camera_path"]
    assert [f["camera_to_world"][7] for f in shown] == [0.5, 0.5, -0.5, -0.5]
    assert [f["render_time"] for f in shown] == [0, 1, 0, 1]


def test_capture_fps_falls_back_to_three_seconds_within_bounds() -> None:
    assert capture_fps({"fps": 23.976}, 100) == 23.976
    assert [capture_fps({}, n) for n in (6, 60, 600)] == [10.0, 20.0, 30.0]
