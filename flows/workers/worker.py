"""A Prefect worker: it takes the runs that are due in one pool, has each done by its `Handler`, and keeps their states.

It is not Prefect's own worker, which runs whatever command, entry point and pull steps the server names. What a run is
made of is decided here, by the handler; the server says only which run is due and with which parameters. A run goes::

    scheduled → pending (ours alone: the server gives a run to one worker) → running → completed | failed | crashed
    cancelling, seen at the next poll → the handler is cancelled → cancelled

Adversary: a hostile server may start runs, withhold them, cancel them and lie about them; it cannot have anything else
done. What an order may bring about is for the vault's policy and signatures to judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

from ...parties.errors import InternalError, IsthmusError, error_of
from .server import FINAL, Given, Server, ServerGoneError, StateType

POLL_S = 1.0
BEAT_WORKER_S = 10.0
BEAT_RUN_S = 15.0  # so that a server that was away for most of `deploy.LOST_AFTER` takes no run for lost
BEAT_AGAIN_S = 3.0  # where the server has not taken it
LIMIT = 8  # runs at a time
LAST_BEAT_S = 2.0
END_S = 12.0  # for stopping what is going on, and telling the server, when we end
_log = logging.getLogger("isthmus.worker")


class Handler(Protocol):
    """What is done with a run."""

    @property
    def keeps_states(self) -> bool:
        """Whether who does it tells the server itself how the run stands."""

    async def __call__(self, run: Given, server: Server) -> None:
        """Do all of it.

        Raises `IsthmusError` for a run that fails. When it is cancelled, it stops whatever it has begun, and raises
        `asyncio.CancelledError`.
        """


@dataclass
class _Working:
    task: asyncio.Task[None]
    told: Literal["", "cancel", "ended"] = ""  # by the server: to stop, or that it counts as ended already


@dataclass
class Worker:
    """Serves one pool of a server, in the name of the member `whose` it is.

    `name` is what people see among the pool's workers.
    """

    server: Server
    pool: str
    whose: str
    name: str
    handler: Handler
    poll_s: float = POLL_S
    limit: int = LIMIT
    _working: dict[UUID, _Working] = field(default_factory=dict)
    _silent: bool = False

    async def serve(self, stopped: asyncio.Event) -> None:
        """Work until `stopped`; then stop what is still going on."""
        helpers = [asyncio.ensure_future(beats) for beats in (self._beat(stopped), self._beat_runs(stopped))]
        try:
            while not stopped.is_set():
                try:
                    await self._poll()
                    self._heard(True)
                except ServerGoneError as failure:
                    self._heard(False, str(failure))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), self.poll_s)
        finally:
            # A beat on its way may come after the farewell, and have us looked for: it is let arrive.
            _, late = await asyncio.wait(helpers, timeout=LAST_BEAT_S if stopped.is_set() else 0)
            for helper in late:
                helper.cancel()
            with contextlib.suppress(ServerGoneError):
                await self.server.forget_worker(self.pool, self.name)
            tasks = [working.task for working in self._working.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=END_S)

    @property
    def _stopping(self) -> frozenset[StateType]:
        """The states at which what is still done of a run is stopped. A flow engine sets the good ends itself."""
        ends: frozenset[StateType] = frozenset({"CANCELLED", "CRASHED"}) if self.handler.keeps_states else FINAL
        return ends | {"CANCELLING"}

    async def _poll(self) -> None:
        if self._working:
            for run, found in (await self.server.states(self._working, patience_s=0)).items():
                working = self._working.get(run)
                if working is None or working.told or found.type not in self._stopping:
                    continue
                working.told = "cancel" if found.type == "CANCELLING" else "ended"
                working.task.cancel()
        if len(self._working) >= self.limit or not await self.server.waiting(self.pool):
            return
        me = f"{socket.gethostname()}:{os.getpid()}"
        for given in (await self.server.scheduled(self.pool))[: self.limit - len(self._working)]:
            if given.id not in self._working and await self.server.claim(given.id, me):
                _log.info("run %s", given.id)
                self._working[given.id] = _Working(asyncio.ensure_future(self._run(given)))

    async def _run(self, given: Given) -> None:
        """One run from here to its last state."""
        try:
            state, message = await self._done(given)
            if state is not None:
                with contextlib.suppress(ServerGoneError):
                    await self.server.propose(given.id, state, message, force=state in ("CRASHED", "CANCELLED"))
                _log.info("run %s: %s %s", given.id, state.lower(), message.partition("\n")[0])
        except Exception:  # whatever it is, it ends this run alone
            _log.exception("run %s", given.id)
        finally:
            del self._working[given.id]

    async def _done(self, given: Given) -> tuple[StateType | None, str]:
        """The last state of a run, with what to say; None where the server has it already."""
        try:
            if not self.handler.keeps_states and not await self.server.propose(given.id, "RUNNING"):
                return "CRASHED", "the server did not let it run"
            with contextlib.suppress(ServerGoneError):
                await self.server.beat_run(given.id)  # a run that was never heard of is never missed
            await self.handler(given, self.server)
            if not self.handler.keeps_states:
                return "COMPLETED", ""
            found = (await self.server.states([given.id])).get(given.id)
            return (
                (None, "") if found is None or found.type in FINAL else ("CRASHED", "its process ended without a word")
            )
        except IsthmusError as error:
            _log.info("run %s: %s %s", given.id, error, error.detail)
            return "FAILED", error.afresh().text()
        except asyncio.CancelledError:
            told = self._working[given.id].told
            if told:
                return (None, "") if told == "ended" else ("CANCELLED", "stopped")
            return "CRASHED", error_of("worker.lost", party=self.whose).text()
        except ServerGoneError as failure:
            _log.error("run %s: the server is gone: %s", given.id, failure)
            return "CRASHED", "the Prefect server could not be reached"
        except Exception:
            _log.exception("run %s: a fault of ours", given.id)
            return "FAILED", InternalError("internal", party=self.whose).text()

    async def _beat(self, stopped: asyncio.Event) -> None:
        async def beat() -> None:
            await self.server.beat_worker(self.pool, self.name, BEAT_WORKER_S)
            await self.server.scheduled(self.pool)  # the server wants its pools to be looked at

        await _again(BEAT_WORKER_S, beat, stopped)

    async def _beat_runs(self, stopped: asyncio.Event) -> None:
        async def beat() -> None:
            for run in list(self._working):
                await self.server.beat_run(run)

        await _again(BEAT_RUN_S, beat, stopped)

    def _heard(self, well: bool, why: str = "") -> None:
        """Say once that the server is gone, and once that it is back."""
        if well == self._silent and well:
            _log.warning("the Prefect server answers")
        elif well == self._silent:
            _log.warning("no orders: %s (the server is down, or `isthmus coordinator start` has not run there)", why)
        self._silent = not well


async def _again(every_s: float, call: Callable[[], Coroutine[Any, Any, None]], stopped: asyncio.Event) -> None:
    """Call at once and again and again, whether or not the server answers; sooner where it does not."""
    while not stopped.is_set():
        pause_s = every_s
        try:
            await call()
        except ServerGoneError:
            pause_s = BEAT_AGAIN_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), pause_s)
