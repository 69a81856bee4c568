"""One sum by itself: what comes of it, who may be missing, and which requests a party refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.asking import gather_once, give_once
from isthmus.horizontal.fixed_point import EXACT
from isthmus.horizontal.members import Members
from isthmus.horizontal.summing import Gathered, PlainGathering, PlainGiving
from isthmus.parties.errors import PeerFailure
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Step, Topic

NAMES = ("amber", "birch", "cedar")
JOB, CONTENT = "1" * 64, "2" * 64
TOPIC, TIMEOUT_S = Topic.EVALUATE, 20.0
VALUES = {"amber": [1.0, 10.0], "birch": [2.0, 20.0], "cedar": [3.0, 30.0]}


@pytest.fixture
def ends() -> Iterator[tuple[dict[str, Channel], dict[str, Channel]]]:
    """The coordinator's ends of the channels, and the parties'."""
    ours, theirs = {}, {}
    for name in NAMES:
        left, right = memory_pair()
        ours[name] = Channel(left, me="hub", peer=name, log=CountingLog(), timeout_s=TIMEOUT_S)
        theirs[name] = Channel(right, me=name, peer="hub", log=CountingLog(), timeout_s=TIMEOUT_S)
    yield ours, theirs
    for channel in (*ours.values(), *theirs.values()):
        channel.close()


def _give(channel: Channel) -> None:
    give_once(
        channel, TOPIC, PlainGiving(channel, TOPIC), np.array(VALUES[channel.me]), EXACT, parties=NAMES,
        job_digest=JOB, attempt=1, content=CONTENT, data="3" * 64, wait_s=TIMEOUT_S,
    )  # fmt: skip


def _sum(ends: Any, *, absent: str = "", fewest: int = 3) -> tuple[Gathered, list[str]]:
    """The sum, and the parties that went on after it."""
    (ours, theirs), went_on = ends, []

    def party(name: str) -> None:
        with suppress(PeerFailure):  # where the sum did not come about
            _give(theirs[name])
            went_on.append(name)

    if absent:
        theirs[absent].close()
    there = [name for name in NAMES if name != absent]
    threads = [threading.Thread(target=party, args=(name,), daemon=True) for name in there]
    for thread in threads:
        thread.start()
    found = gather_once(
        Members(ours), TOPIC, PlainGathering(), 2, EXACT, job_digest=JOB, attempt=1, content=CONTENT,
        deadline_s=TIMEOUT_S, fewest=fewest,
    )  # fmt: skip
    for thread in threads:
        thread.join(TIMEOUT_S)
    return found, sorted(went_on)


def test_one_sum_is_asked_given_and_over(ends: Any) -> None:
    found, went_on = _sum(ends)
    assert (found.total.tolist(), found.survivors) == ([6.0, 60.0], NAMES)
    assert went_on == list(NAMES)


def test_above_the_quorum_a_party_may_be_missing(ends: Any) -> None:
    found, went_on = _sum(ends, absent="birch", fewest=2)
    assert (found.total.tolist(), found.survivors) == ([4.0, 40.0], ("amber", "cedar"))
    assert went_on == ["amber", "cedar"]


def test_below_the_quorum_there_is_no_sum(ends: Any) -> None:
    with pytest.raises(PeerFailure) as caught:
        _sum(ends, absent="birch")
    assert (caught.value.code, caught.value.facts["allowed"]) == ("rounds.quorum", 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"parties": list(NAMES)},
        {"sum": True, "parties": list(NAMES)},
        {"sum": 1},
        {"sum": 1, "parties": "amber"},
        {"sum": 1, "parties": ["birch", "cedar"]},
        {"sum": 1, "parties": ["amber", "birch", "dust"]},
        {"sum": 1, "parties": ["amber", "birch", "birch"]},
        {"sum": 1, "parties": ["amber", {"birch": 1}]},
    ],
    ids=["no number", "a flag", "nobody", "no list", "without it", "a stranger", "one twice", "no name"],
)
def test_a_party_refuses_a_sum_that_is_not_over_parties_of_its_job(ends: Any, fields: dict[str, Any]) -> None:
    ours, theirs = ends
    ours["amber"].send(TOPIC, Step.ASK, fields)
    with pytest.raises(PeerFailure) as caught:
        _give(theirs["amber"])
    assert caught.value.code == "peer.protocol"
