"""What a capture report promises: every threshold, why, and what to do about it. Torch-free."""

from typing import Any

# Where the numbers come from: the captures made good and bad on purpose in tests/bench/flawed.py, the table in
# docs/results.md, and the shared clips, all of which must be good. Pixel measures are shares of the longer side.
FEWEST_FRAMES = 3  # structure from motion starts no model of fewer (sparse_model)
FEW_FRAMES = 12  # half a second
SMALL = 160  # shorter side, pixels
SLOW = 5.0  # frames per second
LONG = 60.0  # seconds
BLURRED = 60.0  # sharpness at 480 pixels; a soft hand-held clip that works has 90, a smear of 25 pixels 50
BLURRED_SHARE = 0.25  # of the median
MANY_BLURRED = 0.1  # of the frames
JUMP = 0.15  # of the brightness of the same things, between frames that follow each other
DARK, BRIGHT = 0.06, 0.94
LITTLE_TEXTURE, NO_TEXTURE = 150, 40  # SIFT features of a frame
LINKED, BARELY_LINKED = 0.95, 0.5  # cameras.min_registered is 0.5
STILL = 0.01  # what the picture moves
PARALLAX, NO_PARALLAX = 0.12, 0.1  # of the points; a camera that turns gives 0.08, the least of clips that work 0.14
FEW_BREAKS = 2  # more of them are no cuts
MOVING, ALL_MOVING = 0.45, 0.7
DISORDER = 0.5  # of the motion between frames eight times as far apart; 0.2 and less in order
REPEATED = 0.3
COMPRESSED = 0.02  # bits per pixel; at 0.017 the cameras are off eight times as far as at 0.03
REGISTERED = 0.9
REPROJECTED = 1.2  # pixels; beyond two an observation is dropped (sfm.MAX_ERROR)
BASELINE = 0.03  # of the distance to the scene

_COST = "nothing tells how far away things are, and novel views hold only close to the filmed one"
RANKS = ("good", "risky", "will fail")


def judge(report: dict[str, Any]) -> dict[str, Any]:
    """The report with `verdict`, `reasons` and `warnings`, from its facts and measures."""
    reasons = [*_frames(report), *_pictures(report), *_cameras(report), *_solved(report)]
    return {
        **report,
        "warnings": report["notes"] + [f"{reason['what']}; {reason['remedy']}" for reason in reasons],
        "verdict": max((reason["verdict"] for reason in reasons), key=RANKS.index, default="good"),
        "reasons": reasons,
    }


def _reason(verdict: str, what: str, remedy: str) -> dict[str, str]:
    return {"verdict": verdict, "what": what, "remedy": remedy}


def _frames(report: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong with the number, size and coding of the frames."""
    training, fps, duration = report["splits"]["train"], report["fps"], report["duration"]
    width, height, bits = report["width"], report["height"], report["bits_per_pixel"]
    repeated = report["motion"]["repeated_share"]
    distinct = round(1 + (training - 1) * (1 - repeated))
    found = []
    if distinct < FEWEST_FRAMES and not report["has_poses"]:
        found.append(_reason("will fail", _only(training, distinct), "film for two seconds or longer"))
    elif distinct < FEW_FRAMES:
        found.append(_reason("risky", _only(training, distinct), "film for two seconds or longer"))
    elif repeated > REPEATED:
        what = f"{repeated:.0%} of the frames repeat the one before"
        found.append(_reason("risky", what, "export the video at the rate at which it was filmed"))
    if min(width, height) < SMALL:
        what = f"the picture is small ({width}x{height})"
        found.append(_reason("risky", what, "film or export at 480 lines or more"))
    if fps is not None and fps < SLOW:
        what = f"the frame rate is low ({fps:.1f} per second), so that things move far between frames"
        found.append(_reason("risky", what, "film at 24 or more"))
    if duration is not None and duration > LONG:
        found.append(
            _reason("risky", f"the clip is long ({duration:.0f} s) and loses details", "cut it to the part of interest")
        )
    if bits is not None and bits < COMPRESSED:
        what = f"the video is heavily compressed ({bits:.4f} bits per pixel)"
        found.append(_reason("risky", what, "use the file from the camera, not one that a messenger sent"))
    return found


def _only(training: int, distinct: int) -> str:
    different = f", {distinct} of them different" if distinct < training else ""
    return f"there are only {training} training frames{different}"


def _pictures(report: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong with the light and the sharpness."""
    sharp, light = report["sharpness"], report["brightness"]
    found = []
    if sharp["median"] < BLURRED:
        remedy = "move the camera slowly, film in good light and wait for the focus"
        found.append(_reason("risky", "the frames look blurred", remedy))
    elif sharp["blurred_share"] > MANY_BLURRED:
        what = f"{sharp['blurred_share']:.0%} of the frames are much more blurred than the rest"
        found.append(_reason("risky", what, "avoid sudden camera motion, or cut them out"))
    if light["largest_jump"] > JUMP:
        what = f"the brightness jumps by {light['largest_jump']:.0%}"
        found.append(_reason("risky", what, "lock exposure and white balance, and avoid flickering lamps"))
    if light["median"] < DARK:
        found.append(_reason("risky", "the picture is very dark", "film with more light"))
    if light["median"] > BRIGHT:
        found.append(_reason("risky", "the picture is over-exposed", "lower the exposure"))
    return found


def _cameras(report: dict[str, Any]) -> list[dict[str, str]]:
    """What will keep the cameras from being found, and the scene from being seen from several sides."""
    motion = report["motion"]
    have = report["has_poses"] or report["cameras"] is not None
    fatal = "risky" if have else "will fail"  # cameras that are there need not be found
    found = []
    texture = motion["features"] < LITTLE_TEXTURE
    if texture:
        what = f"little can be recognised in the pictures ({motion['features']} features in each)"
        remedy = "film something with texture, in focus and in good light"
        found.append(_reason(fatal if motion["features"] < NO_TEXTURE else "risky", what, remedy))
    if 1 <= len(motion["breaks"]) <= FEW_BREAKS:
        moments = ", ".join(f"{second:g} s" for second in motion["breaks"])
        what = f"the picture changes as a whole at {moments}: a cut, or a camera that is far too fast"
        verdict = fatal if motion["linked_share"] < BARELY_LINKED else "risky"
        found.append(_reason(verdict, what, "give one shot, filmed slowly and without cuts"))
    elif motion["linked_share"] < LINKED and not have:
        what = f"only {motion['linked_share']:.0%} of the frames show something that others show too"
        verdict = fatal if motion["linked_share"] < BARELY_LINKED else "risky"
        found.append(_reason(verdict, what, "move the camera slowly and keep still surroundings in view"))
    if motion["linked_share"] >= BARELY_LINKED:
        found += _parallax(report)
    moving = motion["moving_share"]
    if moving is not None and moving > MOVING:
        what = f"about {moving:.0%} of the picture moves"
        remedy = "step back, so that still surroundings fill most of the picture"
        found.append(_reason(fatal if moving > ALL_MOVING else "risky", what, remedy))
    return found


def _parallax(report: dict[str, Any]) -> list[dict[str, str]]:
    """Without parallax there is still a job to run, with a camera that stands or turns, but little to gain from it."""
    motion, remedy = report["motion"], "walk sideways around the scene while filming, a few steps in all"
    if motion["parallax"] < PARALLAX:
        what = "near and far things move almost alike: the camera hardly changes its place"
        if motion["moved"] < STILL:
            what = f"the camera stands still: {_COST}"
        elif motion["parallax"] < NO_PARALLAX:
            what = f"near and far things move alike, the camera turns on the spot or sees one flat thing: {_COST}"
        return [_reason("risky", what, remedy)]
    if (motion["disorder"] or 0) > DISORDER:
        what = "neighbouring frames differ as much as far ones: they are out of order, or the camera shakes"
        return [_reason("risky", what, "number the frames in the order of filming, and hold the camera steadily")]
    return []


def _solved(report: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong with cameras that were found."""
    cameras = report["cameras"]
    if cameras is None:
        return []
    found = []
    if "problem" in cameras:
        found.append(_reason("will fail", cameras["problem"], cameras["remedy"]))
    elif cameras["registered_share"] < REGISTERED:
        what = f"only {cameras['registered_share']:.0%} of the frames found their camera"
        found.append(_reason("risky", what, "cut out blurred and quick parts, or film more slowly"))
    if (cameras.get("reprojection_error_px") or 0) > REPROJECTED:
        what = f"the cameras fit poorly ({cameras['reprojection_error_px']:.1f} pixels)"
        found.append(_reason("risky", what, "film without zoom and with more of the still surroundings in view"))
    if cameras.get("baseline") is not None and cameras["baseline"] < BASELINE:
        what = f"the camera moved by only {cameras['baseline']:.1%} of the distance to the scene"
        found.append(_reason("risky", what, "walk sideways around the scene while filming"))
    return found
