"""Parties with homes, ready to run a job: what the tests' worlds of every shape have in common."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import yaml

from isthmus.flows import vault
from isthmus.flows.jobs import Job, job_of
from isthmus.flows.journal import Journal
from isthmus.flows.launch import run_here, says_less
from isthmus.flows.publisher import Publisher
from isthmus.parties.events import Failed, Phase, parse
from isthmus.parties.network.local import socket_pair
from isthmus.parties.starts import Start

from .kept_open import kept_open


class World:
    """Homes with DuckDB files and party.yaml, and a job, all made to be broken. Its children make the homes."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.folder, self.homes, self.runs, self.job = folder, folder / "homes", folder / "runs", job

    def copy_to(self, folder: Path) -> Self:
        """The same in another folder, with all that the homes have kept."""
        twin = copy.deepcopy(self)
        twin.folder, twin.homes, twin.runs = folder, folder / "homes", folder / "runs"
        shutil.copytree(self.homes, twin.homes)
        return twin

    @property
    def name_of_run(self) -> str:
        """The first run of the job, where a test names none."""
        return f"{self.job['name']}-1"

    def party(self, name: str) -> dict[str, Any]:
        """The content of a party's party.yaml."""
        return yaml.safe_load((self.homes / name / "party.yaml").read_text())

    def write_party(self, name: str, content: dict[str, Any]) -> None:
        """Replace a party's party.yaml."""
        (self.homes / name / "party.yaml").write_text(yaml.safe_dump(content))

    def edit_party(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change a party's party.yaml in place."""
        content = self.party(name)
        change(content)
        self.write_party(name, content)

    def dataset(self, name: str) -> dict[str, Any]:
        """The only dataset of a party."""
        (found,) = self.party(name)["datasets"].values()
        return found

    def sql(self, name: str, statement: str) -> None:
        """Change a party's rows."""
        with duckdb.connect(self.homes / name / f"{name}.duckdb") as connection:
            connection.execute(statement)

    def load_job(self) -> Job:
        """The job as it stands."""
        return job_of(self.job)

    def job_file(self) -> Path:
        """The job as a YAML file."""
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(self.job))
        return path

    def run(self, run: str | None = None, **options: Any) -> Journal:
        """Run the job with real vault processes, without Prefect."""
        return asyncio.run(run_here(self.load_job(), self.homes, run or self.name_of_run, **options))

    def run_inside(
        self,
        run: str | None = None,
        *,
        jobs: dict[str, Job] | None = None,
        phases: Sequence[Phase] | None = None,
        fresh: bool = False,
        timeout_s: float = 30.0,
        leaves: dict[str, Phase] | None = None,
        start: Start | None = None,
    ) -> Journal:
        """Run the job with every vault a thread of this process: the same code, without the seconds to start four.

        `jobs` gives some members another job, and some break down when they should begin what `leaves` says. `start` is
        a member's signature under the job. Raises what explains a failure best, as a flow does.
        """
        job, run = self.load_job(), run or self.name_of_run
        self.journal = journal = Journal(run)
        ends: dict[str, dict[str, socket.socket]] = {member: {} for member in job.members}
        for left, right in job.links:
            ends[left][right], ends[right][left] = socket_pair()

        def serve(member: str) -> None:
            mine = (jobs or {}).get(member, job)
            commands: queue.Queue[bytes] = queue.Queue()
            for phase in phases or job.phases:
                broken = (leaves or {}).get(member) is phase
                commands.put(b"{}" if broken else json.dumps({"phase": phase}).encode())
            if Phase.CLOSE not in (phases or job.phases):
                commands.put(b'{"phase": "close"}')
            opening = vault.Open(job=mine.canonical(), run=run, fresh=fresh, timeout_s=timeout_s, start=start)

            def write(line: bytes) -> None:
                journal.note(member, parse(line, job.aliases()))

            numbers = {peer: os.dup(end.fileno()) for peer, end in ends[member].items()}
            serving = vault.Serving(self.homes / member, numbers, commands)
            serving.serve(opening, mine, Publisher(write, mine.aliases()))
            for end in ends[member].values():  # as when a process ends
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

        threads = [threading.Thread(target=serve, args=(member,), daemon=True) for member in job.members]
        with kept_open(self.homes / member for member in job.members):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=100)
        failures = {member: failed.error() for member, failed in journal.of(Failed)}
        if failures.keys() & job.essential:
            raise min((failures[member] for member in job.members if member in failures), key=says_less)
        return journal

    def command(
        self, *words: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `isthmus …` as a process of its own."""
        return self._process("-m", "isthmus.flows.cli", *words, env=env, **options)

    def python(self, program: str, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program that somebody writes with isthmus."""
        return self._process("-c", program, *words, env=env)

    def _process(self, *words: str, env: dict[str, str] | None, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env={**os.environ, "ISTHMUS_HOMES": str(self.homes), "ISTHMUS_RUNS": str(self.runs), **(env or {})},
            capture_output=True,
            text=True,
            timeout=100,
            **options,
        )
