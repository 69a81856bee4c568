"""What `isthmus party start` and `isthmus coordinator start` run: workers, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import httpx

from ..parties.consortium import Consortium, consortium_of
from ..parties.errors import InputError
from ..parties.home import PartyHome
from .jobs import Job
from .workers.orders import pool_of
from .workers.party import PartyHandler
from .workers.seat import Seat
from .workers.server import PATIENCE_S, Server, ServerGoneError, connected
from .workers.worker import Worker

AGAIN_S = 2.0  # before a server that was away or busy is asked again
_log = logging.getLogger("isthmus.worker")


def require_consortium(home: PartyHome) -> Consortium:
    """The consortium of a home; raises `InputError` ``coordinator.alone`` for one that belongs to none."""
    consortium = consortium_of(home)
    if consortium is None:
        raise InputError("coordinator.alone", party=home.name)
    consortium.check_self(home)
    return consortium


def worker_name(member: str, roster: int | None) -> str:
    """What people see among a pool's workers, and `isthmus status` reads: who, which version, which roster."""
    of_roster = f" roster {roster}" if roster is not None else ""
    return f"{member} isthmus {version('isthmus')}{of_roster}"


async def serve_party(seat: Seat, *, poll_s: float, limit: int, roster: int | None) -> None:
    """Do a party's part of jobs, until told to stop."""
    async with connected() as server:
        worker = Worker(
            server,
            pool_of(seat.member),
            seat.member,
            worker_name(seat.member, roster),
            PartyHandler(seat.member, seat.keeper),
            poll_s,
            limit,
        )
        await _until_told(server, [worker], seat)


async def serve_coordinator(
    seat: Seat,
    consortium: Consortium,
    *,
    runs: Path,
    jobs: Mapping[str, Job],
    poll_s: float,
    limit: int,
) -> None:
    """Register what the consortium's Prefect server offers; run its coordinating flows, and this member's own part."""
    from .deploy import register  # with the flows, which take seconds
    from .workers.coordinator import POOL, CoordinatorHandler

    handler = CoordinatorHandler({**seat.variables(), "ISTHMUS_RUNS": str(runs.resolve())})
    ready = asyncio.ensure_future(handler.prepare())
    roster = consortium.roster
    members = sorted(set(roster.members) - roster.revoked)
    await patiently(lambda: register(members, jobs, limit=limit))
    name = worker_name(seat.member, roster.version)
    async with connected() as server:
        mine = PartyHandler(seat.member, seat.keeper)
        workers = [
            Worker(server, POOL, seat.member, name, handler, poll_s, limit),
            Worker(server, pool_of(seat.member), seat.member, name, mine, poll_s, limit),
        ]
        try:
            await _until_told(server, workers, seat)
        finally:
            await ready
            await handler.close()


async def patiently(register: Callable[[], Awaitable[None]]) -> None:
    """Begin again while the server is away, or too busy to answer.

    Raises `InputError` ``prefect.unreachable`` where it stays so.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            await register()
            return
        except (httpx.HTTPError, RuntimeError) as failure:
            why = failure.__cause__ if isinstance(failure, RuntimeError) else failure  # Prefect wraps some
            refused = isinstance(why, httpx.HTTPStatusError) and why.response.status_code < 500
            if refused or not isinstance(why, httpx.HTTPError):
                raise
            if time.monotonic() > until:
                raise InputError("prefect.unreachable", detail=repr(why)) from failure
            _log.warning("the Prefect server does not answer yet: %s", type(why).__name__)
        await asyncio.sleep(AGAIN_S)


async def _until_told(server: Server, workers: Sequence[Worker], seat: Seat) -> None:
    await seat.keeper.prepare()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    for worker in workers:
        with contextlib.suppress(ServerGoneError):
            await server.beat_worker(worker.pool, worker.name, 30)
        print(f"{worker.name} serves pool {worker.pool}, process {os.getpid()}", flush=True)
    try:
        await asyncio.gather(*(worker.serve(stopped) for worker in workers))
    finally:
        await seat.keeper.close()
