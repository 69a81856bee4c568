"""Our own Prefect worker: what it takes from a pool, how it keeps states, how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from isthmus.flows.workers import worker
from isthmus.flows.workers.server import Given
from isthmus.flows.workers.worker import Worker
from isthmus.parties.errors import PolicyRefusal

from .fake_server import FakeServer

POOL = "isthmus-lab"


class Handler:
    """Does with every run what a test says."""

    def __init__(self, work: Callable[[Given], Awaitable[None]], keeps_states: bool = False) -> None:
        self._work, self.keeps_states = work, keeps_states
        self.begun: list[UUID] = []

    async def __call__(self, run: Given, server: Any) -> None:
        self.begun.append(run.id)
        await self._work(run)


async def _for_ever(run: Given) -> None:
    await asyncio.Event().wait()


async def _at_once(run: Given) -> None:
    pass


def _worker(server: FakeServer, handler: Handler, **options: Any) -> Worker:
    return Worker(server, POOL, "lab", "lab isthmus 1", handler, 0.01, **options)  # type: ignore[arg-type]


def _serve(server: FakeServer, handler: Handler, until: Callable[[], bool], **options: Any) -> None:
    """Serve until something is the case, and then a little longer."""

    async def run() -> None:
        stopped = asyncio.Event()
        serving = asyncio.ensure_future(_worker(server, handler, **options).serve(stopped))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if until():
                break
        else:
            raise AssertionError("it did not happen")
        await asyncio.sleep(0.05)
        stopped.set()
        await serving

    asyncio.run(run())


def _states(server: FakeServer, run: UUID) -> list[str]:
    return [state for state, _ in server.history[run]]


def test_a_run_is_claimed_done_and_told_as_completed() -> None:
    server = FakeServer()
    run = server.put(POOL, {})
    _serve(server, Handler(_at_once), lambda: server.runs[run].type == "COMPLETED")
    assert _states(server, run) == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    assert run in server.beaten


def test_a_run_of_another_pool_is_left_alone() -> None:
    server = FakeServer()
    other, run = server.put("isthmus-insurer", {}), server.put(POOL, {})
    handler = Handler(_at_once)
    _serve(server, handler, lambda: server.runs[run].type == "COMPLETED")
    assert handler.begun == [run]
    assert _states(server, other) == ["SCHEDULED"]


def test_an_error_is_told_in_its_words_and_nothing_of_its_detail() -> None:
    async def refuse(run: Given) -> None:
        raise PolicyRefusal("policy.kind", party="lab", kind="vertical", detail="/secret/path", where="party.yaml")

    server = FakeServer()
    run = server.put(POOL, {})
    _serve(server, Handler(refuse), lambda: server.runs[run].type == "FAILED")
    message = server.runs[run].message
    assert message.startswith("error[policy.kind]: ")
    assert "next" in message
    assert "secret" not in message


def test_a_fault_of_ours_is_told_without_its_words() -> None:
    async def fail(run: Given) -> None:
        raise ValueError("a patient called Zyx")

    server = FakeServer()
    run = server.put(POOL, {})
    _serve(server, Handler(fail), lambda: server.runs[run].type == "FAILED")
    assert server.runs[run].message.startswith("error[internal]")
    assert "Zyx" not in server.runs[run].message


def test_a_run_that_is_cancelled_at_the_server_is_stopped_and_told_so() -> None:
    server, stopped = FakeServer(), []

    async def work(run: Given) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(run.id)
            raise

    run = server.put(POOL, {})

    def until() -> bool:
        if server.runs[run].type == "RUNNING":
            server.set_state(run, "CANCELLING")
        return server.runs[run].type == "CANCELLED"

    _serve(server, Handler(work), until)
    assert stopped == [run]


@pytest.mark.parametrize("state", ["CRASHED", "CANCELLED", "FAILED"])
def test_a_run_that_counts_as_ended_at_the_server_is_stopped_and_left_as_it_is(state: Any) -> None:
    server = FakeServer()
    run = server.put(POOL, {})
    ended: list[str] = []

    async def work(given: Given) -> None:
        server.set_state(run, state, "by the automation")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stopped")

    _serve(server, Handler(work), lambda: bool(ended))
    assert server.runs[run].type == state
    assert server.runs[run].message == "by the automation"


def test_what_goes_on_when_the_worker_ends_is_stopped_and_told_as_crashed() -> None:
    server = FakeServer()
    run = server.put(POOL, {})
    _serve(server, Handler(_for_ever), lambda: server.runs[run].type == "RUNNING")
    assert server.runs[run].type == "CRASHED"
    assert "error[worker.lost]" in server.runs[run].message
    assert POOL not in server.seen  # nobody takes it for one that is there


def test_no_more_runs_are_taken_than_the_limit() -> None:
    server = FakeServer()
    for _ in range(5):
        server.put(POOL, {})
    handler = Handler(_for_ever)
    _serve(server, handler, lambda: len(handler.begun) == 2, limit=2)
    assert len(handler.begun) == 2


def test_two_workers_of_a_pool_do_a_run_once() -> None:
    server = FakeServer()
    runs = [server.put(POOL, {}) for _ in range(6)]
    handler = Handler(_at_once)

    async def serve() -> None:
        stopped = asyncio.Event()
        serving = [asyncio.ensure_future(_worker(server, handler).serve(stopped)) for _ in range(2)]
        while not all(server.runs[run].type == "COMPLETED" for run in runs):
            await asyncio.sleep(0.01)
        stopped.set()
        await asyncio.gather(*serving)

    asyncio.run(asyncio.wait_for(serve(), 20))
    assert sorted(handler.begun, key=str) == sorted(runs, key=str)


def test_a_server_that_is_gone_for_a_while_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server, ready = FakeServer(), asyncio.Event()

    async def work(run: Given) -> None:
        server.down = True
        await asyncio.sleep(0.1)
        server.down = False

    run = server.put(POOL, {})
    _serve(server, Handler(work), lambda: server.runs[run].type == "COMPLETED")
    assert not ready.is_set()
    assert sum("no orders" in record.getMessage() for record in caplog.records) == 1  # said once
    assert sum("answers" in record.getMessage() for record in caplog.records) == 1


def test_a_handler_that_keeps_states_is_not_spoken_for() -> None:
    server = FakeServer()
    run = server.put(POOL, {})

    async def work(given: Given) -> None:
        server.set_state(run, "RUNNING")
        server.set_state(run, "FAILED", "error[policy.kind]: …")

    handler = Handler(work, keeps_states=True)
    _serve(server, handler, lambda: server.runs[run].type == "FAILED")
    assert _states(server, run) == ["SCHEDULED", "PENDING", "RUNNING", "FAILED"]


def test_a_process_that_ends_without_a_word_is_told_as_crashed() -> None:
    server = FakeServer()
    run = server.put(POOL, {})
    _serve(server, Handler(_at_once, keeps_states=True), lambda: server.runs[run].type == "CRASHED")


def test_a_beat_that_the_server_has_not_taken_is_said_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT_AGAIN_S", 0.01)
    monkeypatch.setattr(worker, "BEAT_RUN_S", 1.0)
    server = FakeServer()

    async def work(run: Given) -> None:  # the server is down when the second beat is due, and the third is never
        await asyncio.sleep(0.5)
        server.down, server.beaten = True, []
        await asyncio.sleep(1.0)
        server.down = False
        await asyncio.sleep(0.3)

    run = server.put(POOL, {})
    _serve(server, Handler(work), lambda: server.runs[run].type == "COMPLETED")
    assert run in server.beaten


def test_a_beat_that_is_on_its_way_arrives_before_the_farewell() -> None:
    class Slow(FakeServer):
        async def beat_worker(self, pool: str, name: str, every_s: float) -> None:
            await asyncio.shield(asyncio.ensure_future(self._arrives(pool, name, every_s)))  # hung up on or not

        async def _arrives(self, pool: str, name: str, every_s: float) -> None:
            await asyncio.sleep(0.1)
            await super().beat_worker(pool, name, every_s)

    async def run() -> None:
        stopped = asyncio.Event()
        serving = asyncio.ensure_future(_worker(server, Handler(_at_once)).serve(stopped))
        await asyncio.sleep(0.05)
        stopped.set()
        await serving
        await asyncio.sleep(0.2)

    server = Slow()
    asyncio.run(run())
    assert POOL not in server.seen
