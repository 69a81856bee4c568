"""What we ask of a Prefect server, and all that we read of its answers.

The server may be hostile: of what it says we take ids, types of states and an order's plain JSON, through the models
below, and nothing else. So no block, template, result reference, entry point, command or image that it names is ever
looked at, let alone loaded, and an order is what `orders` makes of it. `wire` bounds an answer's size and time.

All calls wait through a server that is down for `patience_s`, and raise `ServerGoneError` after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from .wire import Answer, Method, Wire, WireError, opened

StateType = Literal[
    "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"
]
FINAL: frozenset[StateType] = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
WORKER_TYPE = "isthmus"
HEARTBEAT = "prefect.flow-run.heartbeat"
PATIENCE_S = 120.0
AGAIN_S = (0.2, 2.0)  # before the next attempt at a server that does not answer; it doubles from one to the other


class ServerGoneError(ConnectionError):
    """The Prefect server does not answer, or not as a Prefect server does."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _State(_Answer):
    type: StateType
    message: str | None = None


class Given(_Answer):
    """A run that waits in a pool. `parameters` is whatever the server says: see `orders`."""

    id: UUID
    flow_id: UUID
    parameters: dict[str, Any] = Field(default_factory=dict)


class _Scheduled(_Answer):
    flow_run: Given


class _Proposed(_Answer):
    status: Literal["ACCEPT", "REJECT", "ABORT", "WAIT"]


class RunState(_Answer):
    """How a run stands, or a task."""

    id: UUID
    state: _State | None = None

    @property
    def message(self) -> str:
        """What whoever set its state has said."""
        return (self.state.message if self.state else None) or ""

    @property
    def type(self) -> StateType:
        """The type of its state; SCHEDULED where it has none yet."""
        return self.state.type if self.state else "SCHEDULED"


class WorkerSeen(_Answer):
    """A worker that a pool has heard of, and when it last did."""

    name: str
    last_heartbeat_time: datetime | None = None


# Of a long list that is all wrong, the first error is enough: each takes memory.
_SCHEDULED = TypeAdapter(Annotated[list[_Scheduled], FailFast()])
_STATES = TypeAdapter(Annotated[list[RunState], FailFast()])
_WORKERS = TypeAdapter(Annotated[list[WorkerSeen], FailFast()])


class Server:
    """A connection to the Prefect server that the settings name (PREFECT_API_URL, PREFECT_API_AUTH_STRING)."""

    def __init__(self, wire: Wire, patience_s: float = PATIENCE_S) -> None:
        self._wire, self._patience_s = wire, patience_s

    async def waiting(self, pool: str) -> bool:
        """Whether runs of a pool may be due: a question that writes nothing at the server, to be asked often."""
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": _now()}}
        body = {"work_pools": {"name": {"any_": [pool]}}, "flow_runs": due, "limit": 1}
        return bool(await self._ask("POST", "/flow_runs/filter", body, _STATES, patience_s=0))

    async def scheduled(self, pool: str) -> list[Given]:
        """The runs of a pool that are due, and may begin by the pool's own limit."""
        now = _now()
        path = f"/work_pools/{pool}/get_scheduled_flow_runs"
        found = await self._ask("POST", path, {"scheduled_before": now}, _SCHEDULED, patience_s=0)
        return [one.flow_run for one in found]

    async def propose(self, run: UUID, state: StateType, message: str = "", *, force: bool = False) -> bool:
        """Whether the server takes a run's next state."""
        body = {"state": {"type": state, "message": message or None}, "force": force}
        answer: _Proposed = await self._ask("POST", f"/flow_runs/{run}/set_state", body, TypeAdapter(_Proposed))
        return answer.status == "ACCEPT"

    async def states(self, runs: Iterable[UUID], *, patience_s: float | None = None) -> dict[UUID, RunState]:
        """How runs stand; those that the server does not know are left out."""
        wanted = {"flow_runs": {"id": {"any_": [str(run) for run in runs]}}}
        return {one.id: one for one in await self._ask("POST", "/flow_runs/filter", wanted, _STATES, patience_s)}

    async def going_within(self, run: UUID) -> list[UUID]:
        """The runs within another run that have not ended."""
        going = {"parent_flow_run_id": {"any_": [str(run)]}, "state": {"type": {"not_any_": sorted(FINAL)}}}
        return [one.id for one in await self._ask("POST", "/flow_runs/filter", {"flow_runs": going}, _STATES)]

    async def claim(self, run: UUID, by: str) -> bool:
        """Take a run that is due, before any other worker does."""
        if not await self.propose(run, "PENDING"):
            return False
        # With something to stop, a run that is cancelled waits for its worker to say that it has stopped.
        with contextlib.suppress(ServerGoneError):  # it is ours all the same
            await self._tell("PATCH", f"/flow_runs/{run}", {"infrastructure_pid": by})
        return True

    async def start(self, deployment: str, parameters: Any, *, name: str, key: str, within: UUID) -> UUID:
        """Start a run of a deployment, shown within another run. Said twice with one key, it is started once."""
        found: RunState = await self._ask("GET", f"/deployments/name/{deployment}", None, TypeAdapter(RunState))
        shown = await self._task(within, name, key)
        body = {"parameters": parameters, "name": name, "idempotency_key": key, "parent_task_run_id": str(shown)}
        path = f"/deployments/{found.id}/create_flow_run"
        run: RunState = await self._ask("POST", path, body, TypeAdapter(RunState))
        return run.id

    async def begin_task(self, run: UUID, name: str) -> UUID:
        """Show one step of a run, as running."""
        task = await self._task(run, name, str(uuid4()))
        await self.end_task(task, "RUNNING")
        return task

    async def _task(self, run: UUID, name: str, key: str) -> UUID:
        new: dict[str, Any] = {"flow_run_id": str(run), "name": name, "task_key": name, "dynamic_key": key}
        task: RunState = await self._ask(
            "POST", "/task_runs/", {**new, "state": {"type": "PENDING"}}, TypeAdapter(RunState)
        )
        return task.id

    async def end_task(self, task: UUID, state: StateType, message: str = "") -> None:
        """Show how a step stands."""
        body = {"state": {"type": state, "message": message or None}, "force": True}
        await self._tell("POST", f"/task_runs/{task}/set_state", body)

    async def post(self, run: UUID, key: str, text: str) -> None:
        """Leave a text with a run, under a key of its own. Said twice, it is there once."""
        await self._tell("POST", f"/flow_runs/{run}/input", {"key": key, "value": text}, well=(409,))

    async def read(self, run: UUID, key: str) -> str | None:
        """The text that was left with a run under a key, if there is one."""
        answer = await self._send("GET", f"/flow_runs/{run}/input/{key}", None, None, well=(404,))
        return answer.text if answer.status == 200 else None

    async def beat_run(self, run: UUID) -> None:
        """Say that a run is alive: what the automation that marks lost runs waits for."""
        resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
        event = {
            "id": str(uuid4()),
            "event": HEARTBEAT,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": resource,
        }
        await self._tell("POST", "/events", [event], patience_s=0)

    async def beat_worker(self, pool: str, name: str, every_s: float) -> None:
        """Say that a worker is there."""
        body = {"name": name, "heartbeat_interval_seconds": every_s}
        await self._tell("POST", f"/work_pools/{pool}/workers/heartbeat", body, patience_s=0)

    async def forget_worker(self, pool: str, name: str) -> None:
        """Say that a worker is no longer there."""
        await self._tell("DELETE", f"/work_pools/{pool}/workers/{name}", None, patience_s=0, well=(404,))

    async def workers(self, pool: str) -> list[WorkerSeen]:
        """The workers that a pool has heard of; none where there is no such pool."""
        answer = await self._send("POST", f"/work_pools/{pool}/workers/filter", {"limit": 200}, None, well=(404,))
        return _parsed(answer, _WORKERS) if answer.status == 200 else []

    async def ask_maybe(self, path: str, answer: TypeAdapter[Any]) -> Any:
        """What is there under a path, or None."""
        found = await self._send("GET", path, None, None, well=(404,))
        return _parsed(found, answer) if found.status == 200 else None

    async def forget_schedule(self, deployment: UUID, schedule: UUID) -> None:
        """Take a schedule from a deployment."""
        await self._tell("DELETE", f"/deployments/{deployment}/schedules/{schedule}", None, well=(404,))

    async def ask(self, method: Method, path: str, body: Any, answer: TypeAdapter[Any]) -> Any:
        """Anything else, read through a model of the caller's."""
        return await self._ask(method, path, body, answer)

    async def _ask(
        self, method: Method, path: str, body: Any, answer: TypeAdapter[Any], patience_s: float | None = None
    ) -> Any:
        return _parsed(await self._send(method, path, body, patience_s), answer)

    async def _tell(
        self, method: Method, path: str, body: Any, *, patience_s: float | None = None, well: tuple[int, ...] = ()
    ) -> None:
        await self._send(method, path, body, patience_s, well=well)

    async def _send(
        self, method: Method, path: str, body: Any, patience_s: float | None, *, well: tuple[int, ...] = ()
    ) -> Answer:
        until = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        pause, longest = AGAIN_S
        while True:
            try:
                answer = await self._wire.request(method, path, body)
                if 200 <= answer.status < 300 or answer.status in well:
                    return answer
                if answer.status < 500 or time.monotonic() > until:
                    raise ServerGoneError(f"status {answer.status} at {path}")
            except WireError as failure:
                if time.monotonic() > until:
                    raise ServerGoneError(str(failure)) from failure
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _parsed(answer: Answer, model: TypeAdapter[Any]) -> Any:
    try:
        return model.validate_json(answer.content)
    except ValidationError as failure:
        raise ServerGoneError("an answer that no Prefect server gives") from failure


@asynccontextmanager
async def connected(patience_s: float = PATIENCE_S) -> AsyncIterator[Server]:
    """Talk to the server of the settings; nothing is asked of it yet."""
    async with opened() as wire:
        yield Server(wire, patience_s)
