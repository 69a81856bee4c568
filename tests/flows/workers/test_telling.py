"""What a party's worker tells the server while its vault works: bundles of events, phases as tasks."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from isthmus.flows.workers import party
from isthmus.flows.workers.orders import said_key
from isthmus.flows.workers.party import Telling
from isthmus.parties.events import Count, Phase, Progress, Started, parse

from .fake_server import FakeServer


def _progress(done: int) -> Progress:
    return Progress(phase=Phase.TRAIN, index=1, units=3, done=done, total=9)


def _lines(server: FakeServer, run: object) -> list[str]:
    bundles = []
    while (text := server.left.get((run, said_key(len(bundles))))) is not None:  # type: ignore[call-overload]
        bundles.append(text)
    return [line for bundle in bundles for line in bundle.splitlines()]


def test_events_arrive_in_order_and_of_progress_the_latest_alone() -> None:
    server, run = FakeServer(), uuid4()
    telling = Telling(server, run)  # type: ignore[arg-type]
    told = [Started(phase=Phase.TRAIN), _progress(1), _progress(2), Count(name="rows", value=5), _progress(3)]
    for event in told:
        telling.note("lab", event)
    asyncio.run(telling.tell_all())
    assert [parse(line, ["lab"]) for line in _lines(server, run)] == [told[0], told[2], told[3], told[4]]


def test_a_bundle_that_the_server_may_have_is_sent_again_as_it_was() -> None:
    server, run = FakeServer(), uuid4()

    async def lost(run_id: object, key: str, text: str) -> None:
        await FakeServer.post(server, run_id, key, text)  # type: ignore[arg-type]
        if server.posts == 1:  # it has arrived, and its answer has not
            raise party.ServerGoneError("lost")

    server.post = lost  # type: ignore[method-assign]
    telling = Telling(server, run)  # type: ignore[arg-type]
    telling.note("lab", Count(name="rows", value=1))
    asyncio.run(telling.tell_all())
    telling.note("lab", Count(name="rows", value=2))
    asyncio.run(telling.tell_all())
    values = [event.value for line in _lines(server, run) if isinstance(event := parse(line, ["lab"]), Count)]
    assert values == [1, 2]


def test_bundles_are_no_longer_than_they_may_be_and_nothing_is_lost(monkeypatch: object) -> None:
    server, run = FakeServer(), uuid4()
    telling = Telling(server, run)  # type: ignore[arg-type]
    before, party.BUNDLE_NBYTES = party.BUNDLE_NBYTES, 100
    try:
        for value in range(10):
            telling.note("lab", Count(name="rows", value=value))
        asyncio.run(telling.tell_all())
    finally:
        party.BUNDLE_NBYTES = before
    assert server.posts > 3
    values = [event.value for line in _lines(server, run) if isinstance(event := parse(line, ["lab"]), Count)]
    assert values == list(range(10))


def test_phases_are_tasks_that_end_as_the_phases_do() -> None:
    server, run = FakeServer(), uuid4()
    telling = Telling(server, run)  # type: ignore[arg-type]
    telling.step(Phase.AGREE, "RUNNING")
    telling.step(Phase.AGREE, "COMPLETED")
    telling.step(Phase.ALIGN, "RUNNING")
    telling.step(Phase.ALIGN, "FAILED", "error[peer.gone]: …")
    asyncio.run(telling.tell_all())
    assert sorted(server.tasks.values()) == [("agree", "COMPLETED", ""), ("align", "FAILED", "error[peer.gone]: …")]


def test_a_server_that_is_down_keeps_nobody_waiting_for_ever(monkeypatch: object) -> None:
    server, run = FakeServer(down=True), uuid4()
    telling = Telling(server, run)  # type: ignore[arg-type]
    telling.note("lab", Count(name="rows", value=1))
    asyncio.run(telling.tell_all())
    assert not server.left
