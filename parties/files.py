"""Files that are whole or not there, whatever happens while they are written.

Content goes to a file of its own, ``NAME.<hex>.partial``, which is synced and then takes the name. So two who write at
once do not mix, and whoever reads finds the old content or the new. Only a kill or a power cut leaves such a file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import disk_errors

PRIVATE = 0o600
PUBLIC = 0o644


def write_whole(path: Path, content: bytes, *, party: str | None = None, mode: int = PUBLIC) -> None:
    """Write a file over what was there, and its folder if there is none.

    Raises `InputError` ``disk.full`` and ``disk.denied`` of `party`, without one of the folder's name.
    """
    with disk_errors(party or path.parent.name or "."), _written(path, content, mode) as temporary:
        temporary.replace(path)


def write_once(path: Path, content: bytes, *, party: str | None = None, mode: int = PUBLIC) -> None:
    """As `write_whole`, but what is there stays: of all who write at once, one does. Raises `InputError` likewise."""
    with (
        disk_errors(party or path.parent.name or "."),
        _written(path, content, mode) as temporary,
        contextlib.suppress(FileExistsError),
    ):
        os.link(temporary, path)


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner alone, unless it is there; one around it is made as the umask says.

    Raises `InputError` ``disk.full`` and ``disk.denied`` of its name.
    """
    with disk_errors(folder.name):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)


def is_open_to_others(path: Path | int) -> bool:
    """Whether others than its owner may do anything with a file or a folder, or one that is open."""
    return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)


def drop_partials(folder: Path, name: str, *, party: str) -> None:
    """Remove what killed processes have left of a file that only the caller writes; `name` may hold ``*``."""
    with disk_errors(party):
        for left in folder.glob(f"{name}*.partial"):
            left.unlink(missing_ok=True)


@contextmanager
def _written(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # files written one after the other come to the disk in that order
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)
