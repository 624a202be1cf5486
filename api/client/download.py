"""One file from the server: resumable, verified, never half there under its own name."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import httpx

from api.client.errors import ServerUnreachable, refusal


def inside(folder: Path, name: str) -> Path:
    """Where the artifact `name` lies in `folder`. Raises ServerUnreachable for a name that leaves it."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or not relative.parts:
        raise ServerUnreachable(f"the server names a file {name!r}, which is not inside the job", "do not trust it")
    return folder.joinpath(*relative.parts)


def download_file(http: httpx.Client, url: str, target: Path, size: int, sha256: str) -> Iterator[int]:
    """Fetch `url` to `target`, yielding the bytes that are there so far.

    What an earlier call left in `<target>.part` is kept and continued (HTTP Range). Raises ServerUnreachable if the
    bytes do not have the promised hash (the part is then removed), httpx.TransportError if the connection breaks.
    """
    if target.is_file() and target.stat().st_size == size and _sha256(target) == sha256:
        yield size
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have < size or size == 0:
        yield from _append(http, url, part, have)
    if part.stat().st_size < size:
        raise ServerUnreachable(f"the transfer of {target.name} ended early", "call again: it goes on where it stopped")
    if _sha256(part) != sha256:
        part.unlink()
        raise ServerUnreachable(f"{target.name} was damaged on the way", "call again: it starts anew")
    part.replace(target)


def _append(http: httpx.Client, url: str, part: Path, have: int) -> Iterator[int]:
    # no content coding: a range counts bytes of the file itself
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", url, headers=headers) as response:
        if response.status_code >= 400:
            response.read()
            raise refusal(response)
        resumed = response.status_code == 206
        with part.open("ab" if resumed else "wb") as file:
            have = have if resumed else 0
            yield have
            for chunk in response.iter_bytes():  # as it comes: what a break leaves unwritten is lost
                have += file.write(chunk)
                yield have


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
