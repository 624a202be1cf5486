"""What a file is by its bytes, to say why a video cannot be opened. Torch-free."""

from pathlib import Path

from dpdy_core.errors import BadInput
from dpdy_core.ingest.boxes import mp4_boxes

_CONVERT = "give an mp4, mov, webm or mkv video, or a folder or zip of frames"
_AGAIN = "copy or upload the whole file again"
_ARCHIVES = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof")


def why_unreadable(path: Path, reason: str) -> BadInput:
    """The most helpful description of a file that no allowed demuxer accepts; `reason` is what the demuxer said."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head.lstrip(b"\xef\xbb\xbf").startswith((b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD")):
        return BadInput(f"{path.name} is a playlist or document that points to other files, not a video", _CONVERT)
    archive = next((name for start, name in _ARCHIVES.items() if head.startswith(start)), "")
    if archive or head[257:262] == b"ustar":
        return BadInput(f"{path.name} is a {archive or 'tar'} archive, which is not accepted", "pack it as zip")
    if head.startswith(_IMAGES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return BadInput(
            f"{path.name} is a single image or an animation, not a video",
            "give a folder or zip of all frames, or a video",
        )
    if head.startswith(b"RIFF"):
        return BadInput(f"{path.name} is an AVI or WAV file, which is not accepted", _CONVERT)
    if head[4:8] in _BOXES:
        if b"moov" not in [box.kind for box in mp4_boxes(path)]:
            return BadInput(
                f"{path.name} is an mp4 without its index (moov missing): the recording or copy was interrupted", _AGAIN
            )
        return BadInput(f"{path.name} is a damaged mp4 ({reason})", _AGAIN)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return BadInput(f"{path.name} is a damaged webm or mkv ({reason})", _AGAIN)
    if b"\0" not in head:
        return BadInput(f"{path.name} is a text file, not a video", _CONVERT)
    return BadInput(f"{path.name} is not a video that can be read ({reason})", _CONVERT)
