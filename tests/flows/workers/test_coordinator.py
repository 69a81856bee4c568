"""The coordinator's worker: a server that is not ready yet, and a coordinating flow that is killed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from isthmus.flows import operating
from isthmus.flows.workers.coordinator import CoordinatorHandler
from isthmus.flows.workers.server import Given, StateType
from isthmus.parties.errors import InputError

from ...vertical_world import VerticalWorld


def _status(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect/api/deployments/")
    return httpx.HTTPStatusError("refused", request=request, response=httpx.Response(code, request=request))


def _wrapped(failure: Exception) -> RuntimeError:
    """As Prefect's own client raises some of them."""
    error = RuntimeError("Error while applying deployment")
    error.__cause__ = failure
    return error


def _register(monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> int:
    """Register at a server that fails like that, one time after the other; how often it was tried."""
    left, tried = list(failures), []

    async def register() -> None:
        tried.append(1)
        if left:
            raise left.pop(0)

    monkeypatch.setattr(operating, "AGAIN_S", 0.0)
    asyncio.run(operating.patiently(register))
    return len(tried)


def test_a_coordinator_waits_for_a_server_that_is_away_or_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _register(monkeypatch, httpx.ConnectError("refused"), _status(503), _wrapped(_status(503))) == 4


def test_a_server_that_refuses_and_a_fault_of_ours_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        _register(monkeypatch, _status(422))
    with pytest.raises(RuntimeError):
        _register(monkeypatch, RuntimeError("ours"))


def test_a_server_that_stays_away_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "PATIENCE_S", -1.0)
    with pytest.raises(InputError) as caught:
        _register(monkeypatch, httpx.ConnectError("refused"))
    assert caught.value.code == "prefect.unreachable"


class _Process:
    """A coordinating flow that is killed as soon as it has its assignment."""

    class stdin:
        @staticmethod
        def write(line: bytes) -> None:
            assert line.endswith(b"\n")

        @staticmethod
        async def drain() -> None:
            pass

    returncode = -9

    async def wait(self) -> int:
        return self.returncode


class _Server:
    """Knows two parts of a run that still go on."""

    def __init__(self, kind: str) -> None:
        self.kind, self.parts = kind, [uuid4(), uuid4()]
        self.proposed: list[tuple[UUID, StateType]] = []

    async def ask(self, method: str, path: str, body: Any, answer: Any) -> Any:
        return answer.validate_python({"name": self.kind})

    async def going_within(self, run: UUID) -> list[UUID]:
        return self.parts

    async def propose(self, run: UUID, state: StateType, message: str = "", *, force: bool = False) -> bool:
        self.proposed.append((run, state))
        return True


def test_the_parts_that_a_killed_flow_has_left_are_cancelled(world: VerticalWorld) -> None:
    server, process = _Server("vertical"), _Process()
    run = Given(id=uuid4(), flow_id=uuid4(), parameters={"job": world.job})

    async def do() -> None:
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        ready.set_result(process)
        handler = CoordinatorHandler(_spare=ready)  # type: ignore[arg-type]
        await handler(run, server)  # type: ignore[arg-type]

    asyncio.run(do())
    assert server.proposed == [(part, "CANCELLING") for part in server.parts]
