"""One table of broken and hostile inputs: each is refused by name, soon, without a trace, without a look elsewhere."""

import os
import re
import resource
from pathlib import Path

import pytest
from PIL import Image

from dpdy_core.ingest.capture import write_capture
from dpdy_core.ingest.sandbox import confined
from dpdy_core.progress import Reporter
from dpdy_core.rundir import read_json
from tests.core.ingest.ingest_samples import make_images, make_run, make_video, picture
from tests.e2e.hostile import (
    CONSTANT,
    HUGE,
    IDENTITY,
    MANIFEST,
    NEGATIVE,
    NOT_A_NUMBER,
    OBJECTS,
    PICKLED,
    PLAYLIST,
    SECRET,
    SVG,
    Make,
    animation,
    archive,
    black_and_white,
    colour,
    depth,
    directory,
    document,
    encoded,
    endless_tiff,
    frame,
    frames,
    linked,
    loop,
    nested,
    npy,
    npy_header,
    pipe,
    png_header,
    pose,
    posed,
    raw,
    relink,
    replaced,
    tarred,
    text,
    with_maps,
    without_rights,
)
from tests.e2e.hostile_videos import big_endian, cut, garbage, jpegs_of, no_time, refer_outside, sound_only, video
from tests.e2e.judge import judge

SECONDS = 10  # of processor, in which each is refused
JPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
FAST_START = {"movflags": "faststart", "keyint": 1}

# name, maker, words of the refusal
TABLE: list[tuple[str, Make, str]] = [
    # files that are no videos
    ("empty file", raw("clip.mp4", b""), "is empty"),
    ("text as mp4", text("clip.mp4", "a letter\n" * 100), "is a text file"),
    ("error page as mp4", text("clip.mp4", "<!DOCTYPE html><html>404</html>"), "is a text file"),
    ("noise as mp4", raw("clip.mp4", bytes(range(256)) * 40), "is not a video"),
    ("playlist as mp4", text("clip.mp4", PLAYLIST), "playlist or document"),
    ("playlist as it is", text("clip.m3u8", PLAYLIST), "playlist or document"),
    ("concat script as mp4", text("clip.mp4", "ffconcat version 1.0\nfile secret.mp4\n"), "playlist or document"),
    ("DASH manifest as mp4", text("clip.mp4", MANIFEST), "playlist or document"),
    ("image pattern", text("frame%d.png", "x"), "is a text file"),
    ("subtitles as mkv", text("clip.mkv", "1\n00:00:00,0 --> 00:00:01,0\nhello\n"), "is a text file"),
    ("one png as mp4", raw("clip.mp4", png_header(64, 48)), "is a single image"),
    ("animated gif as mp4", raw("clip.mp4", animation("GIF")), "is a single image or an animation"),
    ("animated webp as mp4", raw("clip.mp4", animation("WEBP")), "is a single image or an animation"),
    ("avi as mp4", lambda f: make_video(f / "a.avi", pix_fmt="yuv420p").rename(f / "clip.mp4"), "is an AVI"),
    ("tar as zip", tarred, "is a tar archive"),
    ("gzip as zip", raw("clip.zip", b"\x1f\x8b\x08" + bytes(100)), "is a gzip archive"),
    # videos
    ("mp4 cut before its index", video(cut), "moov missing"),
    ("mp4 cut in the middle", video(cut, **FAST_START), "is cut off"),
    ("mkv cut in the middle", video(cut, "clip.mkv", keyint=6), "is cut off"),
    ("garbage in the middle", video(garbage, **FAST_START), "is damaged: only"),
    ("one frame", video(frames=1), "only 1 frame"),
    ("no duration", video(no_time, frames=2), "only 1 frame"),
    ("sound only", sound_only, "sound but no picture"),
    ("pictures in another file", video(refer_outside, "clip.mov"), "in another file"),
    ("10^9 declared frames", video(big_endian(b"stsz", 8, 10**9)), "declares 1000000000 frames"),
    ("gigapixel video", video(jpegs_of(65_500, 65_500), "clip.mov", **JPEG), "only 0 of its 24 frames"),
    ("a long video", video(frames=2, ticks=[0, 360_000]), "lasts 25 minutes"),
    ("video of 8 pixels", video(width=8, height=8), "too few to use"),
    # images
    ("20000 x 20000 png", replaced(lambda: black_and_white(20_000)), "400 megapixels, more than"),
    ("gigapixel png header", replaced(png_header(40_000, 40_000)), "1600 megapixels, more than"),
    ("2^31 pixels a side", replaced(png_header(2**31 - 1, 2**31 - 1)), "megapixels, more than"),
    ("svg as png", replaced(SVG.encode()), r"frame1\.png is not an image"),
    ("gif as png", replaced(lambda: animation("GIF")), r"frame1\.png is not an image"),
    ("animated png", replaced(lambda: animation("PNG")), r"frame1\.png is an animation"),
    ("animated webp", replaced(lambda: animation("WEBP"), "frame9.webp"), r"frame9\.webp is an animation"),
    ("endless tiff", replaced(endless_tiff, "frame9.tif"), r"frame9\.tif is not an image"),
    ("png without pixels", frames(lambda r: (r / "frame0.png").write_bytes(png_header(64, 48))), r"frame0\.png is not"),
    ("frames of two sizes", replaced(lambda: encoded("PNG", Image.new("RGB", (60, 48)))), "60x48 pixels but"),
    # folders
    ("empty folder", frames(lambda r: [p.unlink() for p in r.iterdir()]), "it is empty"),
    ("folder of one frame", lambda f: make_images(f / "frames", 1), "1 image;"),
    ("folder with a video", lambda f: make_video(f / "clip.mp4").parent, "but no frames"),
    ("link to a secret", linked("../../secret.png"), "link that leaves"),
    ("link to a device", linked("/dev/zero"), "link that leaves"),
    ("link to nothing", linked("nowhere.png"), r"frame1\.png.* is missing"),
    ("links in a circle", frames(loop), "cannot be opened|is missing"),
    ("images is a link outside", lambda f: (f / "images").symlink_to(f.parent) or f, "nothing that can be used|leaves"),
    ("pipe as a frame", frames(pipe), r"frame1\.png.* is no file"),
    ("folder as a frame", frames(directory), r"frame1\.png.* is no file"),
    ("frame without rights", without_rights("frame1.png"), r"frame1\.png .*[Pp]ermission denied"),
    ("device as input", lambda _: Path("/dev/zero"), "not a file or folder"),
    ("no such file", lambda f: f / "none.mp4", "does not exist"),
    # zips
    ("empty zip", archive(), "nothing: it is empty"),
    ("zip without images", archive(("readme.txt", b"hello")), "nothing that can be used"),
    ("zip of one image", archive(("a.png", png_header(64, 48))), "1 image;"),
    ("zip bomb", archive(("a.npy", bytes(65 * 2**20))), "zip bomb"),
    ("nested zip bomb", raw("clip.zip", nested(2)), "nothing that can be used"),
    ("zip of 50001 members", archive(*((f"{i}.png", b"") for i in range(50_001))), "50001 members"),
    ("zip with an absolute path", archive(("/etc/cron.d/evil", b"x")), "leaves the folder"),
    ("zip with ..", archive(("../../evil.png", b"x")), "leaves the folder"),
    ("zip with backslashes", archive(("..\\evil.png", b"x")), "leaves the folder"),
    ("zip with a link", archive(("frame0.png", b"../../secret.png"), mode=0o120777), "a link"),
    ("zip with a device", archive(("frame0.png", b""), mode=0o020666), "a special file"),
    ("zip of names that collide", archive(("a.png", b"x"), ("A.PNG", b"y")), "one name on many systems"),
    ("encrypted zip", archive(("a.png", b"x"), flags=1), "encrypted"),
    ("zip cut off", lambda f: raw("c.zip", archive(("a.png", b"x" * 99))(f).read_bytes()[:60])(f), "broken zip"),
    # transforms.json
    ("document is no JSON", document("{'frames': []}"), "not valid JSON"),
    ("document is a list", document("[]"), "not a JSON object"),
    ("document is binary", posed(lambda _: None, lambda r: (r / "transforms.json").write_bytes(b"\xff\xfe\0")), "JSON"),
    ("document without frames", document('{"frames": {}}'), "has no frames"),
    ("deeply nested JSON", document("[" * 100_000 + "]" * 100_000), "not valid JSON"),
    ("key twice", document(lambda t: t[:-1] + ', "w": 64}'), "'w' twice"),
    ("document is a link outside", posed(lambda _: None, lambda r: relink(r, "../../secret.json")), "leaves"),
    ("10^6 frames", document('{"frames": [' + '{"file_path":"a"},' * (10**6 - 1) + "0]}"), "lists 1000000 frames"),
    ("number of 10000 digits", document(lambda t: t.replace("50.0", "9" * 10_000)), "not valid JSON"),
    ("number of 400 digits", document(lambda t: t.replace("50.0", "9" * 400)), "not a finite number"),
    ("NaN focal length", document(lambda t: t.replace("50.0", "NaN")), "not a finite number"),
    ("words for numbers", posed(lambda d: d.update(fl_x="fifty")), "not a finite number"),
    ("frames are numbers", posed(lambda d: d.update(frames=[1, 2, 3])), "no file_path"),
    ("image twice", posed(frame(file_path="images/frame0.png")), "twice"),
    ("missing image", posed(frame(file_path="images/none.png")), "missing"),
    ("image outside", posed(frame(file_path="../../secret.png")), "leaves"),
    ("image by absolute path", posed(frame(file_path="/etc/passwd")), "leaves"),
    ("image by url", posed(frame(file_path="http://localhost/a.png")), "leaves"),
    ("image of no name", posed(frame(file_path="\ud800.png")), "cannot be opened|missing"),
    ("matrix of NaN", posed(pose(0, NOT_A_NUMBER)), "NaN"),
    ("matrix of huge numbers", posed(pose(0, [10**400, 0, 0, 0])), "not a matrix of numbers|NaN or infinite"),
    ("matrix of words", posed(pose(0, ["a", "b", "c", "d"])), "not a matrix"),
    ("matrix of another shape", posed(frame(transform_matrix=[[1]])), "shape"),
    ("singular rotation", posed(pose(0, [0, 0, 0, 0])), "not a rotation"),
    ("sheared rotation", posed(pose(0, [1, 0.2, 0, 0])), "not a rotation"),
    ("mirrored rotation", posed(frame(transform_matrix=[[-1, 0, 0, 0], *IDENTITY[1:]])), "mirrors"),
    ("camera at 10^9", posed(pose(0, [1, 0, 0, 1e9])), "from the origin"),
    ("time of infinity", document(lambda t: t.replace('"time": 1.0', '"time": 1e999')), "not a finite number"),
    ("one time for all", posed(lambda d: [f.update(time=0.5) for f in d["frames"]]), "same time"),
    # depth and masks
    ("pickled npy", with_maps("depth_file_path", "{}.npy", lambda _: PICKLED), "not a depth map"),
    ("npy of objects", with_maps("depth_file_path", "{}.npy", lambda _: npy(OBJECTS)), "not a depth map"),
    ("npy that lies", with_maps("depth_file_path", "{}.npy", lambda _: npy_header(HUGE)), "not a depth map"),
    ("npy of negative size", with_maps("depth_file_path", "{}.npy", lambda _: npy_header(NEGATIVE)), "not a depth map"),
    ("npy with a deep header", with_maps("depth_file_path", "{}.npy", lambda _: npy_header("(" * 900)), "not a depth"),
    ("npy that is a zip", with_maps("depth_file_path", "{}.npy", lambda _: nested(0)), "not a depth map"),
    ("depth of another shape", with_maps("depth_file_path", "{}.png", lambda _: depth(CONSTANT[:20])), "another shape"),
    ("depth in colour", with_maps("depth_file_path", "{}.png", lambda i: colour(i)), "not a depth map"),
    ("depth of nothing", with_maps("depth_file_path", "{}.png", lambda _: depth(CONSTANT)), "no depth"),
    ("masks of nothing", with_maps("mask_path", "{}.png", lambda _: depth(CONSTANT)), "no pixel"),
]


def plant(folder: Path) -> list[Path]:
    """Secrets whose time of access tells whether anybody read them (as relatime does, so set in the past)."""
    Image.fromarray(picture(0)).save(folder / f"{SECRET}.png")
    make_video(folder / f"{SECRET}.mp4", 4)
    (folder / f"{SECRET}.json").write_text('{"frames": "top secret"}')
    planted = [folder / f"{SECRET}.{kind}" for kind in ("png", "mp4", "json")]
    for path in planted:
        os.utime(path, (1, 2))
    return planted


def was_read(path: Path) -> bool:
    return path.stat().st_atime != 1


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_it_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, words: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    given, scratch = tmp_path / "given", tmp_path / "scratch"
    for folder in (given, scratch):
        folder.mkdir()
    source = make(given)
    secrets = plant(tmp_path) + plant(given)[1:2] if source.parent == given and source.is_file() else plant(tmp_path)
    run, config = make_run(tmp_path / "run", source)
    everything = sorted(tmp_path.rglob("*"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = confined(judge, source, run.root, config.ingest.model_dump(), Reporter(), scratch=scratch)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said[1] is not None
    for refusal in filter(None, said):
        assert re.search(words, refusal[0]), refusal
        assert refusal[1]
        assert str(tmp_path) not in " ".join(refusal) or not source.exists()
        assert "secret" not in refusal[0].replace("../../secret", "")
    if "is damaged" not in words:  # damage between the frames that the check looks at is seen by ingest
        assert said[0] == said[1]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    assert sorted(tmp_path.rglob("*")) == everything
    assert not [path.name for path in secrets if was_read(path)]
    assert not Path("pwned").exists()


def test_names_that_are_no_text_are_taken(tmp_path: Path) -> None:
    frames = make_images(tmp_path / "frames")
    for index, path in enumerate(sorted(frames.iterdir())):
        path.rename(frames / os.fsdecode(b"\xff\n%d.png" % index))
    run, config = make_run(tmp_path / "run", frames)
    confined(write_capture, run.root, frames, config.ingest.model_dump(), Reporter())
    assert len(read_json(run.transforms_file)["frames"]) == 6


def test_the_secrets_would_tell(tmp_path: Path) -> None:
    for path in plant(tmp_path):
        assert not was_read(path)
        path.read_bytes()
        if not was_read(path):
            pytest.skip("this file system keeps no time of access: the table cannot see who reads the secrets")


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 40
    assert len({row[0] for row in TABLE}) == len(TABLE)
