"""Every process that a test has brought about, however far removed: all inherit one variable of their environment.

Nothing else is looked at or killed: on the same machine others may run the same commands.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

VARIABLE = "ISTHMUS_TEST_MARK"


@dataclass(frozen=True)
class Seen:
    """A process. Memory is what it holds resident, in MiB; `files` are its open files."""

    pid: int
    words: str
    files: int
    rss_mib: float


class Mark:
    """A mark of its own for whoever starts something."""

    def __init__(self) -> None:
        self.value = uuid4().hex
        self.environment = {VARIABLE: self.value}

    def processes(self, *words: str) -> list[Seen]:
        """Those with the mark, and with all of `words` in their command line, oldest first."""
        found = (self._seen(folder) for folder in Path("/proc").glob("[0-9]*"))
        with_words = (seen for seen in found if seen is not None and all(word in seen.words for word in words))
        return sorted(with_words, key=lambda seen: seen.pid)

    def _seen(self, folder: Path) -> Seen | None:
        wanted = f"{VARIABLE}={self.value}".encode()
        try:  # a zombie has no environment
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                return None
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            pages = int((folder / "statm").read_text().split()[1])
            files = len(list((folder / "fd").iterdir()))
        except (OSError, IndexError):  # it is gone, or not ours to look at
            return None
        return Seen(int(folder.name), words, files, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def kill(self, pids: Iterable[int] | None = None) -> None:
        """kill -9, of all at once."""
        for pid in [seen.pid for seen in self.processes()] if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
