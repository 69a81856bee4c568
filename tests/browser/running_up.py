"""An `isthmus up` in a folder of its own, and what its Prefect server tells programs. Leaving it ends all of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

START_S = 400.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class RunningUp:
    """Use as a context manager. `which` and `patients` are what `isthmus up` takes."""

    def __init__(self, folder: Path, which: str, *, patients: int, port: int) -> None:
        self.folder, self.log = folder, folder / "up.log"
        self._words = ("up", which, "--folder", str(folder / "up"), "--patients", str(patients), "--port", str(port))

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "isthmus.flows.cli", *self._words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PREFECT_API_URL": ""},
                start_new_session=True,
            )
        try:
            wait(self._ready, START_S, "isthmus up")
            printed = re.search(r"PREFECT_API_URL=(\S+)", self.log.read_text())
            assert printed is not None
            self._api = printed[1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"isthmus up has ended\n{self.log.read_text()}")
        return "Ctrl-C ends all of it" in self.log.read_text()

    def ui(self) -> str:
        """The address of the UI, as `isthmus up` has printed it.

        Raises `RuntimeError` for a Prefect that prefers its old UI: these tests know the new one.
        """
        found = re.search(r"UI +(http://\S+)/deployments", self.log.read_text())
        if found is None or not found[1].endswith("/v2"):
            raise RuntimeError(f"Prefect 3.9 or newer is needed for its new UI; found {found and found[1]}")
        return found[1]

    def ask(self, path: str, body: Any = None) -> Any:
        """What the server's API answers: to a GET, or to a POST if there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._api}/{path}", data=data, headers={"Content-Type": "application/json"})
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as failure:
                if failure.code != 503:  # SQLite under load
                    raise
            except OSError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"{path}: the server is too busy")

    def deployment(self, kind: str) -> dict[str, Any]:
        """The deployment of a kind of job."""
        found: dict[str, Any] = self.ask(f"deployments/name/{kind}/isthmus")
        return found

    def run(self, run: str) -> dict[str, Any]:
        """A flow run."""
        found: dict[str, Any] = self.ask(f"flow_runs/{run}")
        return found

    def parts(self, run: str) -> dict[str, str]:
        """The states of the members' parts of a coordinating run, by member."""
        found = self.ask("flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
        return {one["name"]: one["state_type"] for one in found}

    def finished(self, run: str, deadline_s: float) -> dict[str, Any]:
        """A run, once it has ended."""
        wait(lambda: self.run(run)["state_type"] in FINAL, deadline_s, f"run {run}")
        return self.run(run)

    def scheduled(self) -> list[str]:
        """When runs are due that a schedule has made."""
        wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        return [one["expected_start_time"] for one in self.ask("flow_runs/filter", wanted) if one["auto_scheduled"]]

    def progress(self, key: str) -> float:
        """The last value of a progress artifact in percent; 0 without one."""
        found = self.ask("artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return float(found[0]["data"]) if found else 0.0

    def worker(self, member: str) -> int:
        """The process that is a member's worker."""
        words = f"\0start\0{member}\0".encode()
        parents = {pid: (parent, line) for pid, parent, line in _processes()}
        return next(pid for pid, (_, line) in parents.items() if words in line and self._is_ours(pid, parents))

    def vaults(self, of: str) -> list[int]:
        """The vault processes of a party below this `isthmus up`; one of them may only be kept ready."""
        parents = {pid: (parent, words) for pid, parent, words in _processes()}
        return [pid for pid, (_, words) in parents.items() if self._is_ours(pid, parents) and _vault_of(words) == of]

    def _is_ours(self, pid: int, parents: dict[int, tuple[int, bytes]]) -> bool:
        while pid in parents:
            if pid == self._process.pid:
                return True
            pid = parents[pid][0]
        return False


def _vault_of(words: bytes) -> str | None:
    """The party whose vault a command line starts."""
    parts = words.split(b"\0")
    if b"isthmus.flows.vault" not in parts or b"--home" not in parts:
        return None
    return Path(parts[parts.index(b"--home") + 1].decode()).name


def _processes() -> list[tuple[int, int, bytes]]:
    """Every process of this machine: its number, its parent's, its words."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.append((int(folder.name), parent, (folder / "cmdline").read_bytes()))
    return found


def wait(there: Callable[[], bool], deadline_s: float, what: str) -> float:
    """Wait until something is there, and return the seconds it took; raises `RuntimeError`."""
    began = time.monotonic()
    while not there():
        if time.monotonic() - began > deadline_s:
            raise RuntimeError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.3)
    return time.monotonic() - began
