"""Run the members of a job together: all of their vaults on this machine, joined by socket pairs, or one of them alone.

This module knows no Prefect: `run_here` runs a whole job without it, for tests and benchmarks; the flows in `party` and
`coordinate` use the same `Here`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Self

from ..parties.errors import InternalError, IsthmusError, PeerFailure
from ..parties.events import Phase
from ..parties.home import find_home
from ..parties.network.channel import TIMEOUT_S
from ..parties.network.local import socket_pair
from ..parties.starts import Start
from .jobs import Job
from .journal import Journal
from .orders import Open
from .vault_handle import Vault

LAST_WORDS_S = 3.0


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
        self._opening = Open(job=job.canonical(), start=start, run=run, fresh=fresh, timeout_s=timeout_s)
        self._job = job
        self._folders = {member: find_home(homes, member) for member in job.members}
        self._ends: dict[str, dict[str, socket.socket]] = {member: {} for member in job.members}
        self.vaults = {member: Vault(member, job, journal) for member in job.members}

    async def __aenter__(self) -> Self:
        """Make the socket pairs that join those who speak to each other."""
        for left, right in self._job.links:
            self._ends[left][right], self._ends[right][left] = socket_pair()
        return self

    async def start(self, party: str) -> Vault:
        """Start one party's vault."""
        vault = self.vaults[party]
        await vault.start(self._folders[party], self._ends.pop(party), self._opening)
        return vault

    async def __aexit__(self, *_: object) -> None:
        """Stop every vault that is still there."""
        for ends in self._ends.values():
            for end in ends.values():
                end.close()
        await asyncio.gather(*(vault.stop() for vault in self.vaults.values()))


async def together(
    job: Job, run_member: Callable[[str], Awaitable[object]], errors: dict[str, IsthmusError] | None = None
) -> dict[str, BaseException]:
    """Run every member's side at once; the first failure of one that is essential cancels the rest.

    Returns the failures of those that the job went on without. Raises the error that explains the failure best: when
    one member stops, its peers also fail, a little later and with less to say. `errors` is given each member's own.
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
                if errors is not None and isinstance(error, IsthmusError):
                    errors[tasks[task]] = error
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
    opening = Open(job=job.canonical(), start=start, run=run, fresh=fresh, timeout_s=timeout_s, by_exchange=True)
    try:
        await vault.start(home, None, opening)
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
