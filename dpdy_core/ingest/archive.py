"""Zip archives from strangers, unpacked with limits. Torch-free."""

import errno
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from dpdy_core.errors import BadInput

MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 16 * 2**30
MAX_RATIO = 100  # depth maps as raw npy reach 20
_RATIO_FREE_BYTES = 64 * 2**20  # below this much, no ratio does harm
_BLOCK = 2**20
DAMAGE = (None, errno.EINVAL)  # OSErrors of zipfile itself: bz2's broken streams, seeks to before the start


def is_zip(path: Path) -> bool:
    """Whether the file begins like a zip archive (a video may end like one)."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def extract(archive: Path, folder: Path, check: Callable[[], None] | None = None) -> None:
    """Unpack `archive` into the empty `folder`. Raises BadInput before the first byte for what the directory shows.

    Refused: links and devices, absolute names and names with `..`, two names that differ only in case, encrypted
    members, too many members, too many bytes in all or for the archive's size. `check` is called every now and then.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened.infolist(), archive)
            for info, name in members:
                _write(opened, info, folder / name, check)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{archive.name} is a broken zip archive ({error})", "pack or upload it again") from error
    except OSError as error:
        if error.errno not in DAMAGE:
            raise  # the disk, not the archive
        raise BadInput(f"{archive.name} is a broken zip archive ({error})", "pack or upload it again") from error


def _checked(infos: list[zipfile.ZipInfo], archive: Path) -> list[tuple[zipfile.ZipInfo, str]]:
    """The files to unpack with their safe relative names."""
    if len(infos) > MAX_MEMBERS:
        raise BadInput(f"{archive.name} holds {len(infos)} members, more than {MAX_MEMBERS}", "pack fewer files")
    seen: dict[str, str] = {}
    members = []
    for info in infos:
        name = _safe_name(info)
        if info.is_dir() or name.startswith("__MACOSX/") or name.endswith(".DS_Store"):
            continue
        folded = name.casefold()
        if folded in seen:
            raise BadInput(
                f"{archive.name} holds {seen[folded]!r} and {name!r}, one name on many systems", "rename one of them"
            )
        seen[folded] = name
        members.append((info, name))
    total = sum(info.file_size for info, _ in members)
    if total > MAX_UNPACKED_BYTES:
        raise BadInput(
            f"{archive.name} unpacks to {total / 2**30:.1f} GiB, more than {MAX_UNPACKED_BYTES // 2**30} GiB",
            "leave out what is not part of the capture, or scale the images down",
        )
    if total > _RATIO_FREE_BYTES and total > MAX_RATIO * archive.stat().st_size:
        raise BadInput(
            f"{archive.name} unpacks to {total / max(archive.stat().st_size, 1):.0f} times its size: a zip bomb?",
            f"pack images as they are; at most {MAX_RATIO} times is accepted",
        )
    return members


def _safe_name(info: zipfile.ZipInfo) -> str:
    written = info.filename
    name = PurePosixPath(written.replace("\\", "/"))
    kind = (info.external_attr >> 16) & 0o170000
    if kind not in (0, 0o100000, 0o040000):
        what = "a link" if kind == 0o120000 else "a special file"
        raise BadInput(f"the archive holds {written!r}, {what}", "pack the files themselves (zip without --symlinks)")
    if name.is_absolute() or ".." in name.parts or any(":" in part or "\0" in part for part in name.parts):
        raise BadInput(f"the archive holds {written!r}, a path that leaves the folder", "pack with relative names")
    if any(len(part.encode()) > 255 for part in name.parts) or len(name.parts) > 32:
        raise BadInput(f"the archive holds a name that is too long ({written[:60]!r}...)", "use shorter names")
    if info.flag_bits & 1:
        raise BadInput(f"{written!r} in the archive is encrypted", "pack it without a password")
    return str(name)


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, check: Callable[[], None] | None) -> None:
    """Unpack one member. A member never gives more bytes than its directory entry says (zipfile sees to it)."""
    if check is not None:
        check()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(info) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadInput(f"{info.filename!r} in the archive is a file and a folder at once", "rename one") from error
    except (zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"{info.filename!r} in the archive is damaged ({error})", "pack or upload it again") from error
