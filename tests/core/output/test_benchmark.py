"""A benchmark of scored runs: its means, its tables, its published rows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dpdy_core.command import run_command
from dpdy_core.config import RunConfig
from dpdy_core.errors import BadInput, BadSettings
from dpdy_core.output import published
from dpdy_core.output.benchmark import benchmark, read_scene_list, write_benchmark
from dpdy_core.output.benchmark_tables import latex, markdown
from dpdy_core.output.scores import MEASURES, REGIONS
from dpdy_core.rundir import RunDir, read_json, write_json

METHOD_NOTES = Path(__file__).parents[4] / "shared" / "reference" / "method.md"


def scored(root: Path, capture: str, protocol: str = "dycheck", **numbers: float | None) -> RunDir:
    """A run whose evaluation says `numbers` of its covisible pixels, and twice as much of all."""
    run = RunDir(root)
    run.write_config(RunConfig(), Path("/data") / capture, {})
    region = dict.fromkeys(MEASURES)
    own: dict[str, Any] = {**region, **{k: None if v is None else 2 * v for k, v in numbers.items()}}
    mean = {**own, **{name: dict(region) for name in REGIONS}}
    mean["covisible"] |= numbers
    document = {"protocol": protocol, "resolution": [360, 480], "deviations": [], "views": [{}, {}], "mean": mean}
    document["pck_t"] = 0.25 if protocol == "dycheck" else None
    made_of = {"config_hash": "c0ffee", "seed": 0, "capture_hash": "f00d", "versions": {}, "device": {"type": "cpu"}}
    write_json(run.metrics_file, document | made_of | {"notes": ["lpips is null: no weights"]})
    return run


def all_seven(folder: Path) -> list[tuple[str | None, RunDir]]:
    return [
        (None, scored(folder / f"run{i}", f"{scene}.zip", psnr=10.0 + i, ssim=0.5, lpips=0.1 * i))
        for i, scene in enumerate(published.SCENES)
    ]


def test_the_mean_is_over_scenes_and_null_where_one_has_none(tmp_path: Path) -> None:
    runs = [
        (None, scored(tmp_path / "a", "apple", psnr=16.0, ssim=0.5, lpips=0.3)),
        (None, scored(tmp_path / "b", "block", psnr=18.0, ssim=0.7, lpips=None)),
    ]
    document = benchmark(runs)
    assert [scene["scene"] for scene in document["scenes"]] == ["apple", "block"]
    assert document["mean"]["covisible"]["psnr"] == 17.0
    assert document["mean"]["psnr"] == 34.0
    assert document["mean"]["covisible"]["lpips"] is None
    assert document["scenes"][0]["config_hash"] == "c0ffee"
    assert "lpips is null: no weights" in document["notes"]
    assert any("ours is over other scenes" in note for note in document["notes"])


def test_all_seven_scenes_stand_beside_published_rows(tmp_path: Path) -> None:
    document = benchmark(all_seven(tmp_path))
    assert not any("other scenes" in note for note in document["notes"])
    text = markdown(document)
    assert "| ours | 13.00 | 0.500 | 0.300 | 0.250 | this run; apple, block" in text
    assert "| T-NeRF | 16.96 | 0.577 | 0.379 | – | DyCheck docs/BENCHMARK.md" in text
    assert "| NSFF | 15.46 | 0.551 | 0.396 | 0.256 | DyCheck docs/BENCHMARK.md" in text
    assert "| DpDy (paper) | – | 0.559 | 0.516 | – |" in text
    assert published.PROTOCOL in text
    per_scene = next(line for line in text.splitlines() if line.startswith("| ViDAR | 19.18 / 0.801 / 0.315 |"))
    assert per_scene.count("/") == 14
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.skipif(not METHOD_NOTES.exists(), reason="the notes on the method are not part of the repository")
def test_published_rows_are_those_of_the_notes() -> None:
    notes = METHOD_NOTES.read_text()
    half = notes[notes.index("### 4.2") : notes.index("### 4.3")].replace("*", "")
    lines = {line.split("|")[1].strip(): line for line in half.splitlines() if line.startswith("|")}
    own = [line for line in notes[notes.index("### 3.4") :].splitlines() if line.startswith("|")][:6]
    for row in published.MEANS:
        if row.source.startswith("DyCheck") and row.method != "T-NeRF":
            cells = f"{row.psnr:.2f} | {row.ssim:.3f} | {row.lpips:.3f} | {row.pck_t:.3f}"
            assert f"| {row.method} | {cells} |" in own
            continue
        line = lines["DpDy" if row.method == "DpDy (paper)" else row.method]
        for value, digits in ((row.psnr, 2), (row.ssim, 3), (row.lpips, 3)):
            assert value is None or f"{value:.{digits}f}" in line, row
    for scene, methods in published.PER_SCENE.items():
        line = next(line for line in notes.splitlines() if line.startswith(f"| {scene} |"))
        cells = [f"{p:.2f} / {s:.3f} / {q:.3f}".replace("/ 0.", "/ .") for p, s, q in methods.values()]
        assert line == f"| {scene} | " + " | ".join(cells) + " |"


def test_latex_is_balanced_and_escaped(tmp_path: Path) -> None:
    run = scored(tmp_path / "a_b", "50%_off&more", psnr=16.0, ssim=0.5, lpips=0.3)
    text = latex(benchmark([(None, run)]))
    assert r"50\%\_off\&more" in text
    for part in ("table", "tabular"):
        assert text.count(rf"\begin{{{part}}}") == text.count(rf"\end{{{part}}}") == 2
    assert not re.search(r"[↑↓–|]", re.sub(r"^%.*$", "", text, flags=re.MULTILINE))
    for block in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", text, flags=re.DOTALL):
        rows = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(block[0])}


def test_a_name_of_several_lines_breaks_no_table_and_no_comment(tmp_path: Path) -> None:
    run = scored(tmp_path / "a", "two\nlines <&>", psnr=16.0, ssim=0.5, lpips=0.3)
    write_json(run.metrics_file, read_json(run.metrics_file) | {"deviations": ["why"]})
    document = benchmark([(None, run)])
    assert "| two lines <&>* |" in markdown(document)
    text = latex(document)
    assert r"two lines \textless{}\&\textgreater{}*" in text
    assert "\n% two lines <&>: why\n" in text


def test_a_name_in_brackets_is_no_argument_of_the_line_break(tmp_path: Path) -> None:
    assert "\n{}[a] & 2 &" in latex(benchmark([("[a]", scored(tmp_path / "a", "apple", psnr=1.0))]))


def test_deviations_are_marked(tmp_path: Path) -> None:
    run = scored(tmp_path / "a", "apple", psnr=16.0, ssim=0.5, lpips=0.3)
    metrics = read_json(run.metrics_file)
    write_json(run.metrics_file, metrics | {"deviations": ["the images are of factor 4"]})
    text = markdown(benchmark([(None, run)]))
    assert "| apple* |" in text
    assert "| ours* |" in text
    assert "- apple: the images are of factor 4" in text
    assert "not comparable" in text


@pytest.mark.parametrize("protocol", ["plain", "nvidia"])
def test_other_protocols_have_no_published_rows_and_say_so(tmp_path: Path, protocol: str) -> None:
    document = benchmark([(None, scored(tmp_path / "a", "Balloon1", protocol, psnr=10.0))])
    assert document["published"] is None
    assert any(f"protocol {protocol}" in note for note in document["notes"])
    assert "20.00" in markdown(document)


def test_scenes_with_one_name_are_called_after_their_runs(tmp_path: Path) -> None:
    runs = [(None, scored(tmp_path / name, "capture", psnr=1.0)) for name in ("left", "right")]
    assert [scene["scene"] for scene in benchmark(runs)["scenes"]] == ["left", "right"]
    twice = [(None, scored(tmp_path / side / "run", "capture", psnr=1.0)) for side in ("a", "b")]
    assert len({scene["scene"] for scene in benchmark(twice)["scenes"]}) == 2


def test_one_name_for_two_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="two scenes have one name"):
        benchmark([("apple", scored(tmp_path / side, "capture", psnr=1.0)) for side in ("a", "b")])


def test_a_scene_without_views_says_why(tmp_path: Path) -> None:
    run = scored(tmp_path / "a", "apple")
    reason = "the capture has no test views: nothing could be scored"
    write_json(run.metrics_file, read_json(run.metrics_file) | {"views": [], "notes": [reason, "lpips is null: no"]})
    assert f"- apple: {reason}\n" in markdown(benchmark([(None, run)]))


def test_protocols_do_not_mix(tmp_path: Path) -> None:
    runs = [(None, scored(tmp_path / p, p, p, psnr=1.0)) for p in ("plain", "dycheck")]
    with pytest.raises(BadSettings, match="dycheck, plain"):
        benchmark(runs)


def test_a_scene_list_is_read(tmp_path: Path) -> None:
    listing = tmp_path / "scenes.txt"
    listing.write_text("# ours\nruns/a\n\napple = runs/b  # the second\n/somewhere/c\n")
    assert read_scene_list(listing) == [
        (None, tmp_path / "runs/a"),
        ("apple", tmp_path / "runs/b"),
        (None, Path("/somewhere/c")),
    ]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"apple =\n", b"\xff\xfe\x00run", None, b"a\n" * 1001])
def test_a_bad_list_is_refused(tmp_path: Path, content: bytes | None) -> None:
    listing = tmp_path / "scenes.txt"
    if content is not None:
        listing.write_bytes(content)
    with pytest.raises(BadInput):
        read_scene_list(listing)


def test_the_three_files_say_the_same(tmp_path: Path) -> None:
    document = benchmark(all_seven(tmp_path))
    write_benchmark(tmp_path / "out", document)
    assert json.loads((tmp_path / "out/benchmark.json").read_text()) == document
    assert (tmp_path / "out/benchmark.md").read_text() == markdown(document)
    assert (tmp_path / "out/benchmark.tex").read_text() == latex(document)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "no run is given"),
        (["nowhere"], 3, "not a run folder"),
        (["--scenes", "nowhere.txt"], 3, "can be read"),
        (["run", "--protocol", "dychek"], 2, "protocol"),
        (["run", "run"], 2, "given twice"),
        (["run", "./run"], 2, "given twice"),
        (["r" * 5000], 3, "not a run folder"),
        (["run", "--out", "run/config.json"], 2, "cannot be made"),
        (["run", "--out", "/proc/tables"], 2, "cannot be made"),
    ],
)
def test_the_command_ends_as_the_contract_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    from dpdy_core.cli import app

    monkeypatch.chdir(tmp_path)
    scored(tmp_path / "run", "apple").mark_done("scene", "abc")
    assert run_command(app, ["eval", *arguments], "dpdy") == code
    assert said in capsys.readouterr().err
