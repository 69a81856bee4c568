"""Where a Prefect server is attacked from: a consortium, its exchange, and its members' real workers.

Insurer and lab have a vertical job that insurer signs; clinic is a third member with nothing to do in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import yaml
from poison import MARK, Poison

from isthmus.flows.jobs import Job, job_of
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.starts import Start, sign_start
from tests.consortium import Consortium, isthmus
from tests.vertical_world import VerticalWorld

MEMBERS = ("clinic", "insurer", "lab")
PASSWORD = f"admin:{MARK}password"
FIRST_TOPIC = {"agree"}  # where members compare the job itself: no row has been touched by then


class Workshop:
    """Use as a context manager: leaving it ends all that it has started."""

    def __init__(self, persons: int = 60, *, under: str | None = None) -> None:
        self._ends = contextlib.ExitStack()
        temporary = tempfile.TemporaryDirectory(prefix="isthmus-attack-", dir=under)
        self.folder = Path(self._ends.enter_context(temporary))
        self.world = VerticalWorld(self.folder, persons)
        self.world.job["training"]["epochs"] = 2
        (self.homes / "clinic").mkdir()
        self.world.write_party("clinic", {**self.world.party("lab"), "name": "clinic"})
        for member in MEMBERS:
            (self.homes / member).chmod(0o700)
            self.world.edit_party(member, lambda content: content["policy"].update(peers=list(MEMBERS)))
        self.consortium = self._ends.enter_context(Consortium(self.folder, self.world.job, starter="insurer"))
        self.consortium.start_exchange()
        self.poison = Poison(self.folder)
        self.workers: dict[str, subprocess.Popen[str]] = {}
        self._watch: list[Watch] = []

    @property
    def homes(self) -> Path:
        return self.world.homes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for watch in self._watch:
            watch.end()
        self._ends.close()

    # --- processes ---------------------------------------------------------------------------------------------------

    def worker(self, member: str, url: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        """`isthmus party start` of a member, at a server; its output goes to `folder`/MEMBER.worker.log."""
        return self.start(
            member, url, "party", "start", member, "--homes", self.homes, "--poll", "0.1", *words, **options
        )

    def start(self, member: str, url: str, *words: object, **options: Any) -> subprocess.Popen[str]:
        """One of a member's own processes at a server."""
        with (self.folder / f"{member}.worker.log").open("a") as out:
            process = self.consortium.spawn(*words, stdout=out, env=self.environment(url), **options)
        self.workers[member] = process
        self._watch.append(Watch(process.pid))
        return process

    def environment(self, url: str) -> dict[str, str]:
        """What leads a process to a server."""
        prefect = self.folder / "prefect-client"
        mine = {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": PASSWORD, "PREFECT_HOME": str(prefect)}
        return {
            **os.environ,
            **mine,
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "ISTHMUS_DEBUG": "1",
        }

    def said(self, member: str) -> str:
        """What a member's worker has printed."""
        return (self.folder / f"{member}.worker.log").read_text()

    def alive(self) -> bool:
        """Whether every worker that was started is still the same process."""
        return all(process.poll() is None for process in self.workers.values())

    def foreign(self) -> list[str]:
        """The commands of processes below the workers that are neither vaults nor coordinating flows of ours."""
        ours = ("-P -m isthmus.flows.vault --home", "-P -m isthmus.flows.workers.coordinating")
        seen = {command for watch in self._watch for command in watch.seen}
        return sorted(command for command in seen if not any(one in command for one in ours))

    # --- jobs, orders, what has left ---------------------------------------------------------------------------------

    def job(self, **changes: Any) -> Job:
        """The job, or another one."""
        return job_of({**self.world.job, **changes})

    def start_by(self, member: str, job: Job, *, runs: int = 1, **changes: Any) -> Start:
        """A member's signature under a job."""
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        says = {"name": "hearts", "digest": job.digest(), "kind": job.kind, "until": until, **changes}
        identity = Identity(PartyHome(self.homes / member))
        return sign_start(identity, says["name"], says["digest"], says["kind"], until=says["until"], runs=runs)

    def order(self, job: Job, start: Start | None, number: int = 1, **changes: Any) -> dict[str, Any]:
        """The parameters of a party's run, as a coordinating flow makes them."""
        said = None if start is None else start.model_dump(mode="json")
        phases = [phase.value for phase in job.phases]
        true = {"job": job.canonical(), "start": said, "run": job.run_name(number), "phases": phases}
        return {"order": {**true, "fresh": False, "timeout_s": 30.0, **changes}}

    def ledger(self, member: str) -> list[dict[str, Any]]:
        """What has left a member, as `isthmus audit show` says."""
        entries: list[dict[str, Any]] = json.loads(isthmus("audit", "show", member, "--homes", self.homes, "--json"))
        return entries

    def left(self, member: str) -> int:
        """How many entries of a member's ledger are of more than comparing the job."""
        return sum(entry["topic"] not in FIRST_TOPIC for entry in self.ledger(member))

    def edit_policy(self, member: str, **changes: Any) -> None:
        """Change a member's policy."""
        path = self.homes / member / "party.yaml"
        content = yaml.safe_load(path.read_text())
        content["policy"].update(changes)
        path.write_text(yaml.safe_dump(content, sort_keys=False))


class Watch:
    """The commands of all processes below one, as often as one can look."""

    def __init__(self, pid: int) -> None:
        self.seen: set[str] = set()
        self._ended = threading.Event()
        self._root = pid
        threading.Thread(target=self._look, daemon=True).start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            waiting = [self._root]
            while waiting:
                pid = waiting.pop()
                for child in _read(f"/proc/{pid}/task/{pid}/children").split():
                    waiting.append(int(child))
                    command = _read(f"/proc/{child}/cmdline").replace("\0", " ").strip()
                    parent = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
                    if command and command != parent:  # a fork that has not become its command yet
                        self.seen.add(command)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def memory_mib(pid: int) -> float:
    """The most memory that a process has had."""
    line = next(line for line in _read(f"/proc/{pid}/status").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def wait_for(ask: Any, seconds: float) -> Any:
    """What `ask` answers once that is something; None if it does not come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := ask():
            return answer
        time.sleep(0.05)
    return None
