"""A zip of many files, made while it is sent."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from api.jobs.files import Stored


class _Pipe:
    """A write-only stream that keeps what was written until it is taken."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data


def stream_zip(members: Iterable[tuple[str, Stored]]) -> Iterator[bytes]:
    """The bytes of a zip of the files, made on the way; it only stores, as videos and pictures are compressed.

    Raises OSError in the middle for a file that is gone by then: a zip that ends well is whole.
    """
    pipe = _Pipe()
    with ZipFile(pipe, "w", ZIP_STORED) as archive:  # type: ignore[call-overload]  # a stream without seek is enough
        for name, stored in members:
            with archive.open(_entry(name, stored), "w", force_zip64=True) as target:
                sent = 0
                for chunk in stored.read(0, stored.size):
                    target.write(chunk)
                    sent += len(chunk)
                    yield pipe.take()
                if sent != stored.size:
                    raise OSError(f"{name} has become shorter")
    yield pipe.take()


def _entry(name: str, stored: Stored) -> ZipInfo:
    entry = ZipInfo(name, datetime.fromtimestamp(max(stored.modified, 315532800.0), UTC).timetuple()[:6])  # >= 1980
    entry.compress_type = ZIP_STORED
    entry.file_size = stored.size
    entry.external_attr = 0o644 << 16
    return entry
