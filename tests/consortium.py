"""A consortium on one machine: homes with keys and a pinned roster, an exchange process, members that join a job.

Everything by the commands that people use. Use as a context manager: leaving it ends every process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from isthmus.flows.cli import app

THRESHOLD = 2


def isthmus(*words: object) -> str:
    """One command, in this process; what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app([str(word) for word in words], exit_on_error=False, result_action="return_value")
    return out.getvalue()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class JoinedError(AssertionError):
    """A member's `isthmus join` did not end as the test wants it to."""


class Consortium:
    """The members of `job` (as in a job file) whose homes are in `folder`/homes, an exchange, and a signed job.

    A coordinator without a home gets one. `connect` is where the roster says that the exchange is, if that is not where
    it listens (a proxy stands between, say).
    """

    def __init__(
        self,
        folder: Path,
        job: dict[str, Any],
        *,
        starter: str,
        listen: str = "127.0.0.1",
        port: int | None = None,
        connect: str | None = None,
        python: str = sys.executable,
    ) -> None:
        self.folder, self.homes, self.exchange_folder = folder, folder / "homes", folder / "exchange"
        self.job, self.starter, self.python = job, starter, python
        self.port = port or free_port()
        self.listen = f"{listen}:{self.port}"
        self.address = connect or self.listen
        self.members = tuple(sorted(path.parent.name for path in self.homes.glob("*/party.yaml")))
        self.roster = folder / "roster.yaml"
        self.signed = folder / "job.signed.yaml"
        self.exchange: subprocess.Popen[str] | None = None
        self._processes: list[subprocess.Popen[str]] = []
        self._found()

    def _found(self) -> None:
        coordinator = self.job.get("coordinator")
        for member in self.members:
            role = "coordinator" if member == coordinator else "party"
            isthmus("init", role, member, "--homes", self.homes)
            self.allow_starts(member)
        isthmus("init", "exchange", "main", "--address", self.address, "--folder", self.exchange_folder)
        configuration = {"name": "main", "listen": self.listen}
        (self.exchange_folder / "exchange.yaml").write_text(yaml.safe_dump(configuration))
        files = [self.homes / member / f"{member}.member.yaml" for member in self.members]
        own = self.exchange_folder / "main.member.yaml"
        threshold = min(THRESHOLD, len(self.members))
        isthmus("consortium", "add", self.roster, *files, own, "--name", "hearts", "--threshold", threshold)
        self.sign_and_accept()
        self.sign_job()

    def sign_and_accept(self) -> None:
        """Have every member sign the roster's file as it is, and every folder accept it."""
        for member in self.members:
            isthmus("consortium", "sign", self.roster, member, "--homes", self.homes)
        digest = json.loads(isthmus("consortium", "verify", self.roster, "--json"))["digest"]
        folders = [*(self.homes / member for member in self.members), self.exchange_folder]
        isthmus("consortium", "accept", self.roster, *folders, "--digest", digest)

    def allow_starts(self, member: str, rate: str = "100 per day") -> None:
        """Let the starter's signature start this kind of job at a member."""
        path = self.homes / member / "party.yaml"
        content = yaml.safe_load(path.read_text())
        content["policy"]["starts"] = {self.starter: {self.job["kind"]: rate}}
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def sign_job(self, runs: int = 100) -> None:
        """Sign the job as it stands now."""
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(self.job))
        words = ("--as", self.starter, "--homes", self.homes, "--runs", runs, "--out", self.signed)
        isthmus("sign", path, *words)

    # --- processes ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()

    def spawn(self, *words: object, before: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        """`isthmus …` as a process of its own, which ends with this consortium; `before` is put before its words."""
        process = subprocess.Popen(
            [*before, self.python, "-m", "isthmus.flows.cli", *map(str, words)],
            cwd=self.folder,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        self._processes.append(process)
        return process

    def start_exchange(self, **options: Any) -> subprocess.Popen[str]:
        """Start the exchange and wait until it serves."""
        log = self.folder / "exchange.log"
        with log.open("a") as out:
            said = out.tell()
            process = self.spawn("exchange", "start", "--folder", self.exchange_folder, stdout=out, **options)
        self.exchange = process
        wait(lambda: "serves on" in log.read_text()[said:] or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text()
        return process

    def kill_exchange(self) -> None:
        """kill -9."""
        assert self.exchange is not None
        self.exchange.kill()
        self.exchange.wait(10)

    def join(self, member: str, *words: object, **options: Any) -> subprocess.Popen[str]:
        """Have a member join the job; its output goes to `folder`/MEMBER.log."""
        with (self.folder / f"{member}.log").open("a") as out:
            call = ("join", self.signed, "--as", member, "--homes", self.homes, *words)
            return self.spawn(*call, stdout=out, **options)

    def run(self, *words: object, timeout_s: float = 120) -> dict[str, str]:
        """Have all members of the job join it, wait for their end; what each printed. Raises `JoinedError`."""
        joined = {member: self.join(member, *words) for member in self.members}
        for member, process in joined.items():
            process.wait(timeout_s)
            if process.returncode:
                raise JoinedError(f"{member} ended with {process.returncode}: {self.said(member)}")
        return {member: self.said(member) for member in joined}

    def said(self, member: str) -> str:
        """What a member's joins have printed so far."""
        return (self.folder / f"{member}.log").read_text()

    def run_folders(self, member: str) -> list[Path]:
        """The folders of a member's runs, with `vault.log` and checkpoints."""
        return sorted((self.homes / member / "runs").glob("*"))

    def vault_of(self, joined: subprocess.Popen[str]) -> int:
        """The process id of the vault of a member that has joined."""
        children = Path(f"/proc/{joined.pid}/task/{joined.pid}/children")
        found: list[str] = wait(lambda: children.read_text().split(), 30)
        return int(found[0])


def wait(ask: Callable[[], Any], seconds: float = 60) -> Any:
    """What `ask` answers, once that is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
