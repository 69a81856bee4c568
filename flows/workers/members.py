"""The members of one attempt at a job, each at its own worker, as a coordinating flow sees them.

::

    1  flow → server   one run for each member in that member's pool, once all of their workers are there
    2  server → flow   bundles of the vaults' public events, checked against the job's own names; states
    3  flow → server   at the first failure the rest is cancelled

A member whose worker is away gets its run at once, so that people see whom the job waits for; the others get theirs
only when all are there, so that nobody spends an attempt on a peer that never comes.

What a server says here is believed as far as a report goes, and no further: no member does anything because of it.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

from pydantic import ValidationError

from ...parties.catalogue import CATALOGUE
from ...parties.errors import IsthmusError, PeerFailure, error_of
from ...parties.events import Failed, Phase, parse
from ...parties.network.channel import TIMEOUT_S
from ...parties.starts import Start
from ..jobs import Job
from ..journal import Journal
from .orders import Order, attempt_key, pool_of, said_key
from .server import FINAL, RunState, Server, WorkerSeen
from .worker import BEAT_WORKER_S

DEADLINE_S = 60.0  # for every member's worker to take its part
ONLINE = timedelta(seconds=3 * BEAT_WORKER_S)
LAST_STATE_S = 10.0  # for the worker of a vault that has failed to say so
STOP_S = 20.0  # for workers to stop what was cancelled: a vault has five seconds, twice
PARTY_FLOW = "party"


@dataclass
class Members:
    """Use as an async context manager: leaving it stops every member's part that is still going on.

    `within` is the coordinating flow's run, and `attempt` which attempt at `run` this is.
    """

    server: Server
    within: UUID
    job: Job
    run: str
    attempt: int
    journal: Journal
    start: Start | None
    fresh: bool = False
    timeout_s: float = TIMEOUT_S
    deadline_s: float = DEADLINE_S
    _parts: dict[str, UUID] = field(default_factory=dict)
    _there: set[str] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        """Nothing is started yet."""
        self._poll_s = min(2.0, max(0.5, 0.25 * len(self.job.members)))
        self._until = time.monotonic() + self.deadline_s
        self._aliases = self.job.aliases()
        return self

    async def member(self, member: str, phases: Sequence[Phase]) -> None:
        """One member's part, from its start to its end; its events go into the journal.

        Raises the vault's error, `PeerFailure` ``worker.offline``, ``worker.lost`` and ``worker.elsewhere``.
        """
        await self._gather(member, phases)
        part = self._parts[member]
        told, taken = 0, False
        failure: IsthmusError | None = None
        patience = math.inf
        while True:
            found = (await self.server.states([part])).get(part)
            while (bundle := await self.server.read(part, said_key(told))) is not None:
                told += 1
                failure = self._note(member, bundle) or failure
            if failure is not None:  # its worker is about to say so as well: it is not ours to cancel
                patience = min(patience, time.monotonic() + LAST_STATE_S)
            if found is None or found.type in FINAL or time.monotonic() > patience:
                failure = failure or _failure(member, found)
                if failure is not None:
                    raise failure
                return
            taken |= found is not None and found.type not in ("SCHEDULED", "PENDING")
            if not taken and time.monotonic() > self._until:
                raise PeerFailure("worker.offline", party=member, seconds=round(self.deadline_s))
            await asyncio.sleep(self._poll_s)

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is still going on, and see it stop; what does not answer is called crashed."""
        until = time.monotonic() + STOP_S
        asked: set[UUID] = set()
        while going := await self._going():
            if time.monotonic() > until:
                for part, member in going.items():
                    lost = PeerFailure("worker.lost", party=member)
                    await self.server.propose(part, "CRASHED", lost.text(), force=True)
                return
            for part in going.keys() - asked:
                asked.add(part)
                await self.server.propose(part, "CANCELLING", "another member's part has ended")
            await asyncio.sleep(0.5)

    async def _going(self) -> dict[UUID, str]:
        if not self._parts:
            return {}
        states = await self.server.states(self._parts.values())
        return {
            part: member for member, part in self._parts.items() if part in states and states[part].type not in FINAL
        }

    async def _gather(self, member: str, phases: Sequence[Phase]) -> None:
        """Start this member's part once every worker is there; that of one who is away at once."""
        while not self._there >= set(self.job.members):
            if member not in self._there:
                if online(await self.server.workers(pool_of(member))):
                    self._there.add(member)
                    continue
                if member not in self._parts:
                    await self._begin(member, phases)
            if time.monotonic() > self._until:
                away = next(one for one in self.job.members if one not in self._there)
                raise PeerFailure("worker.offline", party=away, seconds=round(self.deadline_s))
            await asyncio.sleep(0.5)
        if member not in self._parts:
            await self._begin(member, phases)

    async def _begin(self, member: str, phases: Sequence[Phase]) -> None:
        order = Order(
            job=self.job.canonical(),
            start=self.start,
            run=self.run,
            phases=tuple(phases),
            fresh=self.fresh,
            timeout_s=self.timeout_s,
        )
        self._parts[member] = await self.server.start(
            f"{PARTY_FLOW}/{member}",
            {"order": order.model_dump(mode="json")},
            name=member,
            key=attempt_key(self.run, member, self.attempt, self.within),
            within=self.within,
        )

    def _note(self, member: str, bundle: str) -> IsthmusError | None:
        """Put what a vault has told into the journal; its error, if that is what it told."""
        for line in bundle.splitlines():
            try:
                event = parse(line, self._aliases)
            except ValidationError:
                continue  # whatever it is, no vault has said it
            self.journal.note(member, event)
            if isinstance(event, Failed):
                return event.error()
        return None


def online(workers: Sequence[WorkerSeen]) -> bool:
    """Whether one of a pool's workers has been heard of lately."""
    now = datetime.now(UTC)
    return any(seen.last_heartbeat_time and now - seen.last_heartbeat_time < ONLINE for seen in workers)


def _failure(member: str, found: RunState | None) -> IsthmusError | None:
    """What the last state of a member's part says, where its vault has told no error: by its code, if it has one."""
    if found is not None and found.type == "COMPLETED":
        return None
    if found is None or found.type == "CRASHED":
        return PeerFailure("worker.lost", party=member)
    if found.type == "CANCELLED":
        return PeerFailure("worker.elsewhere", party=member)
    word = re.match(r"error\[([a-z_.]{1,40})\]", found.message)
    return error_of(word[1] if word and word[1] in CATALOGUE else "internal", party=member)
