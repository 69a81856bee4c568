"""A party's part of a job, done at its own worker: the vault is opened, taken through the phases, and closed.

::

    1  server → worker   an `Order`: the job, who has signed it, which run
    2  worker → vault    the same; the vault judges it (signature, policy, roster, its peers' word) and works
    3  vault → worker    public events, checked against the job's own names
    4  worker → server   the events in bundles, left with the run; a task a phase; the last state, with an error's words

This process holds no row and no key. Who learns what: the server, and with it the coordinator, whatever the vault's
policy lets a public event carry.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from uuid import UUID

from ...parties.errors import IsthmusError
from ...parties.events import Phase, Progress, PublicEvent
from ..journal import Journal
from ..orders import Open
from ..vault_handle import Keeper, Vault
from .orders import Order, order_of, said_key
from .server import Given, Server, ServerGoneError, StateType

TELL_EVERY_S = 0.5
BUNDLE_NBYTES = 1024 * 1024
LAST_WORDS_S = 20.0


@dataclass(frozen=True)
class PartyHandler:
    """Does a party's part of whatever job its pool holds."""

    party: str
    keeper: Keeper
    keeps_states: bool = False

    async def __call__(self, run: Given, server: Server) -> None:
        """See `worker.Handler`."""
        order, job = order_of(run.parameters, self.party)
        telling = Telling(server, run.id)
        vault = Vault(self.party, job, Journal(order.run, listeners=[telling.note]))
        background = asyncio.ensure_future(telling.keep_telling())
        try:
            await self.keeper.open(vault, _opening(order))
            for phase in order.phases:
                telling.step(phase, "RUNNING")
                try:
                    await vault.phase(phase)
                except IsthmusError as error:
                    telling.step(phase, "FAILED", str(error))
                    raise
                except asyncio.CancelledError:
                    telling.step(phase, "CANCELLED")
                    raise
                telling.step(phase, "COMPLETED")
        finally:
            try:
                await vault.stop()
            finally:
                background.cancel()
                await telling.tell_all()


def _opening(order: Order) -> Open:
    told = order.model_dump(mode="json", include={"job", "start", "run", "fresh", "timeout_s"})
    return Open.model_validate({**told, "by_exchange": True})


class Telling:
    """What goes to the server while a vault works, behind its back: a server that is gone for a while stops no vault.

    Events go in bundles, in order and whole, of progress the latest alone. A bundle that the server may have or not is
    sent again as it was, under its number, so that it is there once.
    """

    def __init__(self, server: Server, run: UUID) -> None:
        self._server, self._run = server, run
        self._events: list[tuple[str, str]] = []  # what it may be replaced by, and the line
        self._bundle: str | None = None
        self._sent = 0
        self._steps: list[tuple[Phase, StateType, str]] = []
        self._tasks: dict[Phase, UUID] = {}
        self._turn = asyncio.Lock()

    def note(self, party: str, event: PublicEvent) -> None:
        """Take one event on."""
        key = f"{event.phase} {event.index}" if isinstance(event, Progress) else ""
        if key and self._events and self._events[-1][0] == key:
            self._events.pop()
        self._events.append((key, event.model_dump_json()))

    def step(self, phase: Phase, state: StateType, message: str = "") -> None:
        """Take on how a phase stands."""
        self._steps.append((phase, state, message))

    async def keep_telling(self) -> None:
        """Tell what there is, again and again."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            with contextlib.suppress(ServerGoneError):
                await asyncio.shield(self._tell())

    async def tell_all(self) -> None:
        """Tell the rest, if the server takes it in time: else the coordinator's report lacks it."""
        with contextlib.suppress(ServerGoneError, TimeoutError):
            await asyncio.wait_for(self._tell(), LAST_WORDS_S)

    async def _tell(self) -> None:
        async with self._turn:
            while self._bundle is not None or self._events:
                if self._bundle is None:
                    self._bundle = self._next_bundle()
                await self._server.post(self._run, said_key(self._sent), self._bundle)
                self._bundle, self._sent = None, self._sent + 1
            while self._steps:
                phase, state, message = self._steps[0]
                if phase not in self._tasks:
                    self._tasks[phase] = await self._server.begin_task(self._run, phase.value)
                if state != "RUNNING":
                    await self._server.end_task(self._tasks[phase], state, message)
                self._steps.pop(0)

    def _next_bundle(self) -> str:
        count, size = 0, 0
        for _, line in self._events:
            if count and size + len(line) > BUNDLE_NBYTES:
                break
            count, size = count + 1, size + len(line)
        bundle, self._events = self._events[:count], self._events[count:]
        return "\n".join(line for _, line in bundle)
