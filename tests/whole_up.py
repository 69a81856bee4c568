"""`isthmus up` as a process, as people start it, and the address of its Prefect server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

START_S = 240.0
STOP_S = 60.0


class WholeUp:
    """`isthmus up` in `folder`; `environment` is added to ours. It has to be stopped."""

    def __init__(self, folder: Path, patients: int | None, port: int, environment: Mapping[str, str]) -> None:
        self.folder, self._environment = folder, dict(environment)
        self.homes = (folder / "up" / "homes").resolve()
        self.runs = (folder / "up" / "runs").resolve()
        self._words = ("up", "--port", str(port), *(("--patients", str(patients)) if patients else ()))
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> float:
        """Start it; the seconds until it says that all is there."""
        log, began = self.folder / "up.log", time.monotonic()
        with log.open("ab") as out:
            said = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "isthmus.flows.cli", *self._words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        while not (found := re.search(r"PREFECT_API_URL=(\S+)", log.read_bytes()[said:].decode(errors="replace"))):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() - began < START_S, log.read_text()
            time.sleep(0.05)
        self.url = found[1]
        return time.monotonic() - began

    def interrupt(self) -> None:
        """Ctrl-C, which a terminal sends to the whole group."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)

    def stop(self) -> int:
        """Ctrl-C, and its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.interrupt()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
