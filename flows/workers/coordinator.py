"""What the coordinator's worker does with a run of its pool: it has a process of ours be the coordinating flow.

The job comes out of a form, a file or a schedule by way of the server, and is read here like any other input. Who has
signed it, and whether the coordinator's own vault signs it, is settled in the flow (`attempt`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ...parties.errors import InputError
from ..jobs import first_problem
from ..kinds import KINDS, room
from .orders import Assignment
from .server import Given, Server, ServerGoneError

POOL = "isthmus"
_NOT_FOR_FLOWS = "PREFECT_CLIENT_MAX_RETRIES"  # a worker waits for the server by itself, a flow by Prefect's client
STOP_S = 25.0  # a flow has its members' workers stop first
SPARE_AFTER_S = 5.0  # a run that begins has the machine to itself


class _Flow(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str


class _Form(BaseModel):
    """The parameters of a coordinating flow."""

    model_config = ConfigDict(extra="forbid")

    job: dict[str, Any]
    fresh: bool = False
    signature: str = ""


@dataclass
class CoordinatorHandler:
    """Runs coordinating flows, each in a process of its own, of which one is always ready."""

    variables: Mapping[str, str] = field(default_factory=dict)
    keeps_states: bool = True  # the flow engine does
    _spare: asyncio.Task[asyncio.subprocess.Process] | None = None

    async def prepare(self) -> None:
        """Have a process ready."""
        self._spare = self._spare or asyncio.ensure_future(self._start())

    async def close(self) -> None:
        """End the process that is ready."""
        if self._spare is not None:
            process = await self._spare
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def __call__(self, run: Given, server: Server) -> None:
        """See `worker.Handler`. Raises `InputError` for a job that is none, before anything is started."""
        given = await _assignment(run, server)
        process = await self._take()
        assert process.stdin is not None
        try:
            process.stdin.write(given.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            await process.wait()
        except asyncio.CancelledError:
            process.stdin.close()  # at which the flow cancels itself
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
            raise
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            with contextlib.suppress(ServerGoneError):  # one that was killed could not have its members' parts stopped
                for part in await server.going_within(run.id):
                    await server.propose(part, "CANCELLING", "the coordinating flow is gone")

    async def _take(self) -> asyncio.subprocess.Process:
        await self.prepare()
        assert self._spare is not None
        process, self._spare = await self._spare, None
        asyncio.get_running_loop().call_later(SPARE_AFTER_S, lambda: asyncio.ensure_future(self.prepare()))
        if process.returncode is not None:  # it has died while it waited
            return await self._start()
        return process

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "isthmus.flows.workers.coordinating"),
            stdin=asyncio.subprocess.PIPE,
            env={name: value for name, value in {**os.environ, **self.variables}.items() if name != _NOT_FOR_FLOWS},
            start_new_session=True,  # Ctrl-C goes to the worker, which closes the pipe
        )


async def _assignment(run: Given, server: Server) -> Assignment:
    """What a run asks for. Raises `InputError` ``job.invalid`` and ``order.invalid``."""
    flow: _Flow = await server.ask("GET", f"/flows/{run.flow_id}", None, TypeAdapter(_Flow))
    if flow.name not in KINDS:
        raise InputError("order.invalid", party="the coordinator", problem="there is no such kind of job")
    try:
        form = _Form.model_validate(run.parameters)
        job = room(flow.name, "job").JOB.model_validate(form.job)
    except ValidationError as failure:
        where, problem = first_problem(failure)
        raise InputError("job.invalid", problem=problem, where=where) from failure
    return Assignment(run=run.id, kind=flow.name, job=job.canonical(), fresh=form.fresh, signature=form.signature)
