"""The coordinator's view of the parties: one that is silent keeps nobody waiting, one that is wrong is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal import members as module
from isthmus.horizontal.members import Members, send_vector
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import SocketCarrier, socket_pair
from isthmus.parties.network.message import Step, Topic

NAMES = ("amber", "birch", "cedar")
TOPIC, TIMEOUT_S = Topic.TRAIN, 20.0
SIZE = 3_000_000  # of 4 bytes: more than a socket holds


def _vector(place: int) -> Any:
    return np.arange(SIZE, dtype="<u4") + np.uint32(place)


@pytest.fixture
def ends() -> Iterator[tuple[Members, Mapping[str, Channel]]]:
    """The coordinator's members, and the parties' ends of real sockets."""
    ours: dict[str, Channel] = {}
    theirs: dict[str, Channel] = {}
    for name in NAMES:
        left, right = (SocketCarrier(end) for end in socket_pair())
        ours[name] = Channel(left, me="coordinator", peer=name, log=CountingLog(), timeout_s=TIMEOUT_S)
        theirs[name] = Channel(right, me=name, peer="coordinator", log=CountingLog(), timeout_s=TIMEOUT_S)
    members = Members(ours)
    members.tell(NAMES, TOPIC, Step.INBOX, 1)
    yield members, theirs
    for channel in (*ours.values(), *theirs.values()):
        channel.close()


def _heard(members: Members, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    return dict(members.hear_vectors(NAMES, TOPIC, Step.MASKED, 1, SIZE, "<u4", deadline=deadline))


def _sending(theirs: Mapping[str, Channel], *names: str) -> list[threading.Thread]:
    threads = []
    for name in names:
        content = _vector(NAMES.index(name))
        arguments = (theirs[name], TOPIC, Step.MASKED, 1, content)
        threads.append(threading.Thread(target=send_vector, args=arguments))
        threads[-1].start()
    return threads


def test_the_vectors_of_all_are_heard_whole(ends: Any) -> None:
    members, theirs = ends
    threads = _sending(theirs, *NAMES)
    heard = _heard(members, TIMEOUT_S)
    assert set(heard) == set(NAMES)
    assert all(np.array_equal(heard[name], _vector(place)) for place, name in enumerate(NAMES))
    assert members.idle(TOPIC) == NAMES
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_is_silent_keeps_nobody_waiting(ends: Any, begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.05)
    members, theirs = ends
    if begun:  # and stops in the middle
        part = _vector(0)[: module.CHUNK_ITEMS]
        fields = {"sum": 1, "chunk": 0, "chunks": 3}
        threading.Thread(
            target=theirs["amber"].send, args=(TOPIC, Step.MASKED, fields, {"values": part}), daemon=True
        ).start()
    threads = _sending(theirs, "birch", "cedar")
    heard = _heard(members, 1.5)
    assert set(heard) == {"birch", "cedar"}
    assert not members.gone
    assert members.idle(TOPIC) == ("birch", "cedar")
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"chunk": 1, "chunks": 3}, module.CHUNK_ITEMS),
        ({"chunk": 0, "chunks": 2}, module.CHUNK_ITEMS),
        ({"chunk": "0", "chunks": "3"}, module.CHUNK_ITEMS),
        ({"chunk": None}, 1),
        ({"chunk": 0, "chunks": 3}, 7),
    ],
)
def test_one_whose_chunks_are_not_in_order_is_gone(ends: Any, fields: dict[str, Any], size: int) -> None:
    members, theirs = ends
    whole = {"sum": 1, **fields}
    arrays = {"values": np.zeros(size, dtype="<u4")}
    sender = threading.Thread(target=theirs["amber"].send, args=(TOPIC, Step.MASKED, whole, arrays))
    sender.start()
    threads = _sending(theirs, "birch", "cedar")
    assert set(_heard(members, TIMEOUT_S)) == {"birch", "cedar"}
    assert members.gone["amber"].code == "peer.protocol"
    for thread in (sender, *threads):
        thread.join()


def test_one_that_closes_its_channel_is_gone_at_once(ends: Any) -> None:
    members, theirs = ends
    theirs["amber"].close()
    threads = _sending(theirs, "birch", "cedar")
    assert set(_heard(members, TIMEOUT_S)) == {"birch", "cedar"}
    assert members.gone["amber"].code == "peer.gone"
    for thread in threads:
        thread.join()
