"""Models by hub id: the local cache first, then the hub. Only safetensors, JSON and text are ever asked for."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from dpdy_core.errors import BadSettings, JobFailed


def hub_folder(name: str, patterns: Sequence[str], what: str, remedy: str, marks: Sequence[str] = ()) -> Path:
    """The folder with the files of hub id `name` that match `patterns`.

    A cached copy counts only if one of the files `marks` is in it (another part of the repository may be all that
    was ever fetched). `what` names the thing in errors. Raises BadSettings if `name` can't be a hub id, JobFailed,
    with `remedy`, if it can't be had.
    """
    try:
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(patterns)))
        if not marks or any((cached / mark).exists() for mark in marks):
            return cached
    except HFValidationError as error:
        raise BadSettings(f"{name!r} is neither a folder nor a hub id", remedy) from error
    except OSError:
        pass  # not in the local cache
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # any network or hub failure: the hub's client raises those of several libraries
        raise JobFailed(f"{what} {name!r} is not in the local cache and could not be fetched", remedy) from error
