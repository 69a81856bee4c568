"""Two member processes, of which one sends the other many bytes by an exchange."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from ...consortium import Consortium, wait

SENDER, RECEIVER = "insurer", "lab"
_MEMBER = Path(__file__).with_name("member.py")


class Transfer:
    """`mib` MiB from one member to the other. Use as a context manager: leaving it ends both."""

    def __init__(self, consortium: Consortium, mib: int) -> None:
        self.consortium, self.mib = consortium, mib
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, *, sender: tuple[object, ...] = (), receiver: tuple[object, ...] = ()) -> Self:
        """Start both, with words of their own (see `member`)."""
        self.began = time.monotonic()
        for who, does, peer, words in (
            (RECEIVER, "receive", SENDER, receiver),
            (SENDER, "send", RECEIVER, (*sender, "--mib", self.mib)),
        ):
            home = self.consortium.homes / who
            with self._log(who).open("w") as out:
                self.processes[who] = subprocess.Popen(
                    [sys.executable, str(_MEMBER), does, str(home), peer, *map(str, words)],
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def wait_until_at(self, share: float, seconds: float = 300) -> None:
        """Wait until the receiver has this share of it."""
        ended = lambda: any(process.poll() is not None for process in self.processes.values())  # noqa: E731
        wait(lambda: self.arrived() >= share * self.mib or ended(), seconds)
        assert not ended(), {who: self.said(who) for who in self.processes}

    def arrived(self) -> int:
        """How many MiB the receiver has."""
        lines = [line.split()[1] for line in self.said(RECEIVER).splitlines() if line.startswith("at ")]
        return int(lines[-1]) if lines else 0

    def said(self, who: str) -> str:
        """What a member has printed."""
        return self._log(who).read_text()

    def ends(self, seconds: float = 300) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for the end of both, check that what came is what was sent; what sender and receiver tell of it."""
        told = {}
        for who in (SENDER, RECEIVER):
            process = self.processes[who]
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise AssertionError({name: self.said(name)[-2000:] for name in self.processes}) from None
            assert process.returncode == 0, {name: self.said(name)[-2000:] for name in self.processes}
            told[who] = json.loads(self.said(who).splitlines()[-1])
        self.seconds = time.monotonic() - self.began
        sent, came = told[SENDER], told[RECEIVER]
        for fact in ("digest", "count", "nbytes"):
            assert sent[fact] == came[fact]
        assert came["nbytes"] == self.mib * 1024 * 1024
        return sent, came

    def _log(self, who: str) -> Path:
        return self.consortium.folder / f"{who}.transfer.log"


def peak_mib(pid: int) -> int:
    """The most memory that a process has had so far, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no such process")
