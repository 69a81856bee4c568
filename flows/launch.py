"""Start the vaults of a job as processes: all of them on this machine, joined by socket pairs, or one of them alone.

This module knows no Prefect: `run_here` runs a whole job without it, for tests and benchmarks; the flows in `party` and
`coordinate` use the same `Here`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from ..parties.errors import InternalError, IsthmusError, PeerFailure, disk_errors
from ..parties.events import Failed, Finished, Phase, parse
from ..parties.home import find_home
from ..parties.network.channel import TIMEOUT_S
from ..parties.network.local import socket_pair
from ..parties.starts import Start
from .jobs import Job
from .journal import Journal

STOP_S = 5.0
LOG_FILE = "vault.log"  # in the home's folder of a run
LINE_NBYTES = 4 * 1024 * 1024  # of one event: a histogram is the longest
LAST_WORDS_S = 3.0


class Vault:
    """A flow's handle on one vault: commands go down, public events come up into the journal."""

    def __init__(self, party: str, job: Job, journal: Journal) -> None:
        self.party = party
        self._job, self._aliases, self._journal = job, job.aliases(), journal
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._has_ended = False  # it has said its last word, and takes leave of its peers

    async def start(
        self,
        home: Path,
        ends: dict[str, socket.socket] | None,
        run: str,
        *,
        fresh: bool,
        timeout_s: float,
        start: Start | None,
    ) -> None:
        """Start the process and tell it which job it is for. Without `ends` it meets its peers at an exchange."""
        by_exchange, ends = ends is None, ends or {}
        ours, theirs = socket_pair()
        passed = [theirs.fileno(), *(end.fileno() for end in ends.values())]
        peers = [word for peer, end in ends.items() for word in ("--peer", f"{peer}={end.fileno()}")]
        log = _open_log(home, run)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-P",  # or whoever can write into the folder that we are in could have its code run here
                    "-m",
                    "isthmus.flows.vault",
                    "--home",
                    str(home),
                    "--control",
                    str(passed[0]),
                    *peers,
                ),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                start_new_session=True,  # Ctrl-C goes to the flow, which closes the pipe
            )
        finally:
            os.close(log)
        theirs.close()
        for end in ends.values():
            end.close()
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_NBYTES)
        opening = {"job": self._job.canonical(), "run": run, "fresh": fresh, "timeout_s": timeout_s}
        signed = start.model_dump(mode="json") if start else None
        await self._say({**opening, "start": signed, "by_exchange": by_exchange})

    async def phase(self, phase: Phase) -> None:
        """Have one phase done; its events go into the journal.

        Raises the vault's error, in words made here from its code, or `PeerFailure` ``vault.died``.
        """
        await self._say({"phase": phase.value})
        while line := await self._line():
            try:
                event = parse(line, self._aliases)
            except ValidationError:
                break  # whatever it is, it is not for our eyes
            self._journal.note(self.party, event)
            self._has_ended |= isinstance(event, Failed) or (isinstance(event, Finished) and event.phase is Phase.CLOSE)
            if isinstance(event, Failed):
                raise event.error()
            if isinstance(event, Finished) and event.phase is phase:
                return
        raise PeerFailure("vault.died", party=self.party)

    async def _line(self) -> bytes:
        assert self._reader is not None
        try:
            return await self._reader.readline()
        except ConnectionError:  # it was killed
            return b""

    async def stop(self) -> None:
        """Close the pipe, at which the vault ends at once; kill it if it does not.

        One that ends by itself is let: else its goodbye may be lost on its way, and its peers wait till their deadline.
        """
        if self._process is not None and self._has_ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_S)
        if self._writer is not None:
            self._writer.close()
        if self._process is not None and self._process.returncode is None:
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _say(self, line: dict[str, Any]) -> None:
        assert self._writer is not None
        with contextlib.suppress(ConnectionError):  # the reading side will see that it is gone
            self._writer.write(json.dumps(line).encode() + b"\n")
            await self._writer.drain()

    @property
    def pid(self) -> int | None:
        """The vault's process id."""
        return self._process.pid if self._process else None


class Here:
    """All vaults of one attempt at a job, on this machine. Use as an async context manager: leaving it stops them."""

    def __init__(
        self,
        job: Job,
        homes: Path,
        run: str,
        journal: Journal,
        *,
        fresh: bool = False,
        timeout_s: float = TIMEOUT_S,
        start: Start | None = None,
    ) -> None:
        self.job, self.journal = job, journal
        self._start = start
        self._folders = {member: find_home(homes, member) for member in job.members}
        self._run, self._fresh, self._timeout_s = run, fresh, timeout_s
        self._ends: dict[str, dict[str, socket.socket]] = {member: {} for member in job.members}
        self.vaults = {member: Vault(member, job, journal) for member in job.members}

    async def __aenter__(self) -> Self:
        """Make the socket pairs that join those who speak to each other."""
        for left, right in self.job.links:
            self._ends[left][right], self._ends[right][left] = socket_pair()
        return self

    async def start(self, party: str) -> Vault:
        """Start one party's vault."""
        vault = self.vaults[party]
        await vault.start(
            self._folders[party],
            self._ends.pop(party),
            self._run,
            fresh=self._fresh,
            timeout_s=self._timeout_s,
            start=self._start,
        )
        return vault

    async def __aexit__(self, *_: object) -> None:
        """Stop every vault that is still there."""
        for ends in self._ends.values():
            for end in ends.values():
                end.close()
        await asyncio.gather(*(vault.stop() for vault in self.vaults.values()))


async def together(job: Job, run_member: Callable[[str], Awaitable[object]]) -> dict[str, BaseException]:
    """Run every member's side at once; the first failure of one that is essential cancels the rest.

    Returns the failures of those that the job went on without. Raises the error that explains the failure best: when
    one member stops, its peers also fail, a little later and with less to say.
    """
    tasks: dict[asyncio.Future[object], str] = {
        asyncio.ensure_future(run_member(member)): member for member in job.members
    }
    failures: dict[str, BaseException] = {}

    def note(done: set[asyncio.Future[object]]) -> bool:
        """Whether the job can go on."""
        for task in done:
            if (error := task.exception()) is not None:
                failures[tasks[task]] = error
        return not failures.keys() & job.essential

    pending = set(tasks)
    goes_on = True
    try:
        while pending and goes_on:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            goes_on = note(done)
        if pending:
            done, pending = await asyncio.wait(pending, timeout=LAST_WORDS_S)
            note(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not goes_on:
        raise min((failures[member] for member in job.members if member in failures), key=says_less)
    return failures


async def run_here(
    job: Job,
    homes: Path,
    run: str,
    *,
    phases: Sequence[Phase] | None = None,
    fresh: bool = False,
    journal: Journal | None = None,
    timeout_s: float = TIMEOUT_S,
    start: Start | None = None,
) -> Journal:
    """Run a job with real vault processes and without Prefect; returns its journal."""
    journal = journal or Journal(run)
    async with Here(job, homes, run, journal, fresh=fresh, timeout_s=timeout_s, start=start) as here:

        async def one(party: str) -> None:
            vault = await here.start(party)
            for phase in phases or job.phases:
                await vault.phase(phase)

        await together(job, one)
    return journal


async def join(
    job: Job,
    home: Path,
    run: str,
    journal: Journal,
    *,
    fresh: bool = False,
    timeout_s: float = TIMEOUT_S,
    start: Start | None = None,
) -> None:
    """One member's side of a job whose other members are on other machines: they meet at an exchange."""
    vault = Vault(home.name, job, journal)
    try:
        await vault.start(home, None, run, fresh=fresh, timeout_s=timeout_s, start=start)
        for phase in job.phases:
            await vault.phase(phase)
    finally:
        await vault.stop()


def says_less(error: BaseException) -> int:
    """By how little an error explains of a job's end: the key to sort the members' errors by."""
    if not isinstance(error, IsthmusError):
        return 0
    if isinstance(error, InternalError):
        return 1
    if error.code in ("peer.gone", "peer.deadline"):
        return 4
    return 3 if isinstance(error, PeerFailure) and error.code != "peer.identity" else 2


def _open_log(home: Path, run: str) -> int:
    """The party's own file, for whatever its vault says, whatever library says it."""
    path = home / "runs" / run / LOG_FILE
    with disk_errors(home.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def environment() -> dict[str, str]:
    """What a process that reads rows gets of our environment: nothing of Prefect's, whose keys are not for it.

    One thread for mathematics: several vaults share a machine, and one thread adds up in one order.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
