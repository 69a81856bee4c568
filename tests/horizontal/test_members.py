"""The coordinator's view of the parties: who answers, who is late, who is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from isthmus.horizontal import members as module
from isthmus.horizontal.members import Members, VectorReader, receive_vector, send_vector
from isthmus.parties.errors import PeerFailure
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Message, Step, Topic

NAMES = ("amber", "birch", "cedar")
TRAIN = Topic.TRAIN
Sides = tuple[Members, dict[str, Channel]]


@pytest.fixture
def sides() -> Iterator[Sides]:
    """The coordinator's members, and each party's channel."""
    ours, theirs = {}, {}
    for name in NAMES:
        left, right = memory_pair()
        ours[name] = Channel(left, me="coordinator", peer=name, log=CountingLog(), timeout_s=5.0)
        theirs[name] = Channel(right, me=name, peer="coordinator", log=CountingLog(), timeout_s=5.0)
    yield Members(ours), theirs
    for channel in (*ours.values(), *theirs.values()):
        channel.close()


def soon(seconds: float = 0.05) -> float:
    return time.monotonic() + seconds


def test_who_is_late_is_left_out_and_its_belated_answer_is_passed_over(sides: Sides) -> None:
    members, theirs = sides
    members.tell(NAMES, TRAIN, Step.ROUND, 1)
    for name in ("amber", "cedar"):
        theirs[name].send(TRAIN, Step.OFFER, {"sum": 1})
    assert list(members.hear(NAMES, TRAIN, Step.OFFER, 1, deadline=soon())) == ["amber", "cedar"]
    assert members.idle(TRAIN) == ("amber", "cedar") and members.names == NAMES
    theirs["birch"].send(TRAIN, Step.OFFER, {"sum": 1})
    assert members.idle(TRAIN) == NAMES
    members.tell(NAMES, TRAIN, Step.ROUND, 2)
    theirs["birch"].send(TRAIN, Step.OFFER, {"sum": 2, "late": False})
    assert members.hear(["birch"], TRAIN, Step.OFFER, 2, deadline=soon(5))["birch"].fields["late"] is False


def test_who_is_gone_is_asked_no_more(sides: Sides) -> None:
    members, theirs = sides
    theirs["birch"].close()
    members.tell(NAMES, TRAIN, Step.ROUND, 1)
    assert members.hear(["birch"], TRAIN, Step.OFFER, 1, deadline=soon(5)) == {}
    assert members.names == ("amber", "cedar") and members.gone["birch"].code == "peer.gone"
    members.tell(NAMES, TRAIN, Step.ROUND, 2)  # it is no error to name it
    assert members.hear_vector("birch", TRAIN, Step.VALUES, 2, 3, "<f4", deadline=soon()) is None


@pytest.mark.parametrize(
    ("step", "fields"),
    [(Step.VALUES, {"sum": 1}), (Step.OFFER, {"sum": 2}), (Step.OFFER, {}), (Step.OFFER, {"sum": "1"})],
)
def test_who_answers_what_was_not_asked_is_gone_and_learns_it(sides: Sides, step: Step, fields: dict[str, int]) -> None:
    members, theirs = sides
    members.tell(["amber"], TRAIN, Step.ROUND, 1)
    theirs["amber"].send(TRAIN, step, fields)
    assert members.hear(["amber"], TRAIN, Step.OFFER, 1, deadline=soon(5)) == {}
    assert members.gone["amber"].code == "peer.protocol"
    theirs["amber"].receive(TRAIN, Step.ROUND)
    with pytest.raises(PeerFailure, match="lost coordinator"):
        theirs["amber"].receive(TRAIN, Step.ROUND)


def test_an_answer_that_is_not_acceptable_is_not_accepted(sides: Sides) -> None:
    members, theirs = sides
    members.tell(["amber"], TRAIN, Step.ROUND, 1)
    theirs["amber"].send(TRAIN, Step.OFFER, {"sum": 1})
    assert members.hear(["amber"], TRAIN, Step.OFFER, 1, deadline=soon(5), accept=lambda *_: False) == {}
    assert "amber" in members.gone


@pytest.mark.parametrize("size", [0, 1, 4, 5, 11])
def test_a_vector_travels_in_chunks_both_ways(sides: Sides, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 4)
    members, theirs = sides
    values = np.arange(size, dtype="<f4")
    members.tell_vector(["amber"], TRAIN, Step.ROUND, 1, values, {"round": 7})
    first = theirs["amber"].receive(TRAIN, Step.ROUND)
    found, fields = receive_vector(theirs["amber"], TRAIN, Step.ROUND, first, size, "<f4")
    assert found.tolist() == values.tolist() and fields == {"round": 7}
    send_vector(theirs["amber"], TRAIN, Step.VALUES, 1, values, {"rows": 3})
    answer = members.hear_vector("amber", TRAIN, Step.VALUES, 1, size, "<f4", deadline=soon(5))
    assert answer is not None and answer[0].tolist() == values.tolist() and answer[1] == {"rows": 3}
    assert members.idle(TRAIN) == NAMES


def test_a_vector_that_stops_half_way_is_late_and_the_rest_of_it_is_passed_over(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 4)
    members, theirs = sides
    channel = theirs["amber"]

    def chunk(number: int, place: int) -> None:
        channel.send(TRAIN, Step.VALUES, {"sum": number, "chunk": place, "chunks": 2}, {"values": np.zeros(4, "<f4")})

    members.tell(["amber"], TRAIN, Step.GIVE, 1)
    chunk(1, 0)
    assert members.hear_vector("amber", TRAIN, Step.VALUES, 1, 8, "<f4", deadline=soon()) is None
    assert "amber" not in members.idle(TRAIN)
    chunk(1, 1)
    assert "amber" in members.idle(TRAIN)
    members.tell(["amber"], TRAIN, Step.GIVE, 2)
    chunk(2, 0)
    chunk(2, 1)
    assert members.hear_vector("amber", TRAIN, Step.VALUES, 2, 8, "<f4", deadline=soon(5)) is not None


def test_chunks_that_are_not_in_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 4)

    def chunk(place: int, chunks: int, size: int, dtype: str = "<f4", name: str = "values") -> Message:
        return Message(TRAIN, Step.VALUES, {"chunk": place, "chunks": chunks}, {name: np.zeros(size, dtype)})

    assert not VectorReader(6, "<f4").add(chunk(1, 2, 2))
    assert not VectorReader(6, "<f4").add(chunk(0, 1, 4))
    assert not VectorReader(6, "<f4").add(chunk(0, 2, 3))
    assert not VectorReader(6, "<f4").add(chunk(0, 2, 4, "<f8"))
    assert not VectorReader(6, "<f4").add(chunk(0, 2, 4, name="other"))
    reader = VectorReader(6, "<f4")
    assert reader.add(chunk(0, 2, 4)) and not reader.complete
    assert not reader.add(chunk(0, 2, 4)) and reader.add(chunk(1, 2, 2)) and reader.complete


def test_a_party_refuses_chunks_of_another_exchange(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ITEMS", 4)
    members, theirs = sides
    part = {"values": np.zeros(4, "<f4")}
    members.tell(["amber"], TRAIN, Step.ROUND, 1, {"chunk": 0, "chunks": 2}, part)
    members.tell(["amber"], TRAIN, Step.ROUND, 2, {"chunk": 1, "chunks": 2}, part)
    first = theirs["amber"].receive(TRAIN, Step.ROUND)
    with pytest.raises(PeerFailure, match="does not allow"):
        receive_vector(theirs["amber"], TRAIN, Step.ROUND, first, 8, "<f4")


def test_a_party_that_sends_belated_answers_without_end_keeps_nobody_waiting(sides: Sides) -> None:
    members, theirs = sides
    members.tell(NAMES, TRAIN, Step.ROUND, 2)
    done, found = threading.Event(), list[object]()

    def flood() -> None:
        while not done.is_set():
            theirs["amber"].send(TRAIN, Step.OFFER, {"sum": 1})

    def hear() -> None:
        found.append(members.hear(["amber"], TRAIN, Step.OFFER, 2, deadline=soon()))
        found.append(members.hear_vector("amber", TRAIN, Step.VALUES, 2, 3, "<f4", deadline=soon()))
        found.append(members.idle(TRAIN))

    threads = [threading.Thread(target=work, daemon=True) for work in (flood, hear)]
    for thread in threads:
        thread.start()
    threads[1].join(20)
    done.set()
    threads[0].join(20)
    assert found == [{}, None, ()]
