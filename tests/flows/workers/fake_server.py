"""A Prefect server in memory, for the workers' own logic: runs with states, what is left with them, what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from isthmus.flows.workers.server import Given, RunState, ServerGoneError, StateType, WorkerSeen


@dataclass
class FakeServer:
    """As `flows.workers.server.Server`. `down` makes every call fail."""

    down: bool = False
    runs: dict[UUID, RunState] = field(default_factory=dict)
    given: dict[UUID, Given] = field(default_factory=dict)
    pools: dict[UUID, str] = field(default_factory=dict)
    history: dict[UUID, list[tuple[StateType, str]]] = field(default_factory=dict)
    left: dict[tuple[UUID, str], str] = field(default_factory=dict)
    tasks: dict[UUID, tuple[str, StateType, str]] = field(default_factory=dict)
    seen: dict[str, list[WorkerSeen]] = field(default_factory=dict)
    beaten: list[UUID] = field(default_factory=list)
    posts: int = 0

    def put(self, pool: str, parameters: dict[str, Any]) -> UUID:
        """Have a run wait in a pool."""
        run = uuid4()
        self.given[run] = Given(id=run, flow_id=uuid4(), parameters=parameters)
        self.pools[run] = pool
        self._set(run, "SCHEDULED", "")
        return run

    def be_online(self, *pools: str) -> None:
        """Have a worker of these pools heard of just now."""
        for pool in pools:
            self.seen[pool] = [WorkerSeen(name="one", last_heartbeat_time=datetime.now(UTC))]

    def set_state(self, run: UUID, state: StateType, message: str = "") -> None:
        """As somebody in the UI does."""
        self._set(run, state, message)

    async def waiting(self, pool: str) -> bool:
        return bool(await self.scheduled(pool))

    async def scheduled(self, pool: str) -> list[Given]:
        self._must_be_up()
        return [self.given[run] for run, of in self.pools.items() if of == pool and self.runs[run].type == "SCHEDULED"]

    async def claim(self, run: UUID, by: str) -> bool:
        self._must_be_up()
        if self.runs[run].type != "SCHEDULED":
            return False
        self._set(run, "PENDING", by)
        return True

    async def propose(self, run: UUID, state: StateType, message: str = "", *, force: bool = False) -> bool:
        self._must_be_up()
        if self.runs[run].type in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED") and not force:
            return False
        if state == "CANCELLING" and self.runs[run].type == "SCHEDULED":
            state = "CANCELLED"  # nothing has begun that would have to be stopped
        self._set(run, state, message)
        return True

    async def states(self, runs: Iterable[UUID], *, patience_s: float | None = None) -> dict[UUID, RunState]:
        self._must_be_up()
        return {run: self.runs[run] for run in runs if run in self.runs}

    async def begin_task(self, run: UUID, name: str) -> UUID:
        self._must_be_up()
        task = uuid4()
        self.tasks[task] = (name, "RUNNING", "")
        return task

    async def end_task(self, task: UUID, state: StateType, message: str = "") -> None:
        self._must_be_up()
        self.tasks[task] = (self.tasks[task][0], state, message)

    async def post(self, run: UUID, key: str, text: str) -> None:
        self._must_be_up()
        self.posts += 1
        self.left.setdefault((run, key), text)

    async def read(self, run: UUID, key: str) -> str | None:
        self._must_be_up()
        return self.left.get((run, key))

    async def start(self, deployment: str, parameters: Any, *, name: str, key: str, within: UUID) -> UUID:
        self._must_be_up()
        return self.put(f"isthmus-{deployment.partition('/')[2]}", parameters)

    async def beat_run(self, run: UUID) -> None:
        self._must_be_up()
        self.beaten.append(run)

    async def beat_worker(self, pool: str, name: str, every_s: float) -> None:
        self._must_be_up()
        self.seen[pool] = [WorkerSeen(name=name, last_heartbeat_time=datetime.now(UTC))]

    async def forget_worker(self, pool: str, name: str) -> None:
        self._must_be_up()
        self.seen.pop(pool, None)

    async def workers(self, pool: str) -> list[WorkerSeen]:
        self._must_be_up()
        return self.seen.get(pool, [])

    def _set(self, run: UUID, state: StateType, message: str) -> None:
        self.runs[run] = RunState.model_validate({"id": run, "state": {"type": state, "message": message}})
        self.history.setdefault(run, []).append((state, message))

    def _must_be_up(self) -> None:
        if self.down:
            raise ServerGoneError("down")
