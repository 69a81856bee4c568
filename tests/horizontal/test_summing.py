"""Plain sums: the same words as under masks, from those that are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import EXACT, FLOAT32, FLOAT64
from isthmus.horizontal.members import Members
from isthmus.horizontal.summing import PlainGathering, PlainGiving, Sum, order_of
from isthmus.parties.errors import InputError, PeerFailure
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Step, Topic

NAMES = ("amber", "birch", "cedar")
ONE = Sum("1" * 64, 1, 1, "2" * 64, NAMES)
TOPIC, TIMEOUT_S = Topic.TRAIN, 20.0
Gather = Callable[..., Any]


@pytest.fixture
def gather() -> Iterator[Gather]:
    """Sum up numbers in threads; a party without any is not there, one that is `silent` offers and then closes."""
    channels: list[Channel] = []

    def run(values: Any, encoding: Any = FLOAT32, *, silent: str = "", failures: Any = None, **options: Any) -> Any:
        ours = {}
        for name in NAMES:
            left, right = memory_pair()
            ours[name] = Channel(left, me="coordinator", peer=name, log=CountingLog(), timeout_s=TIMEOUT_S)
            theirs = Channel(right, me=name, peer="coordinator", log=CountingLog(), timeout_s=TIMEOUT_S)
            channels.extend([ours[name], theirs])

            def party(name: str = name, channel: Channel = theirs) -> None:
                giving = PlainGiving(channel, TOPIC)
                try:
                    channel.receive(TOPIC, Step.ROUND)
                    if name in values:
                        giving.offer(ONE, np.asarray(values[name]), encoding)
                        order = channel.receive(TOPIC, *giving.steps)
                        if name != silent:
                            giving.handle(order)
                except InputError as failure:
                    failures.append(failure)
                finally:
                    channel.close()

            threading.Thread(target=party, daemon=True).start()
        members = Members(ours)
        members.tell(NAMES, TOPIC, Step.ROUND, 1)
        return PlainGathering().gather(members, TOPIC, ONE, 2, encoding, deadline_s=TIMEOUT_S, **options)

    yield run
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("encoding", [FLOAT32, FLOAT64, EXACT], ids=lambda encoding: encoding.name)
def test_all_numbers_are_added_up(gather: Gather, encoding: Any) -> None:
    found = gather({"amber": [1.0, -2.0], "birch": [0.5, 0.25], "cedar": [3.0, 4.0]}, encoding)
    assert (found.total.tolist(), found.survivors) == ([4.5, 2.25], NAMES)


def test_who_is_not_there_or_goes_before_it_gives_is_left_out(gather: Gather) -> None:
    found = gather({"amber": [1.0, -2.0], "cedar": [3.0, 4.0]}, silent="cedar")
    assert (found.total.tolist(), found.survivors) == ([1.0, -2.0], ("amber",))


def test_of_fewer_than_the_caller_needs_there_is_no_sum(gather: Gather) -> None:
    found = gather({"amber": [1.0, -2.0], "cedar": [3.0, 4.0]}, fewest=3)
    assert (found.total.tolist(), found.survivors) == ([0.0, 0.0], ())


def test_what_is_no_number_does_not_leave(gather: Gather) -> None:
    failures: list[InputError] = []
    found = gather({"amber": [1.0, float("nan")], "birch": [1.0, 1.0]}, failures=failures)
    assert found.survivors == ("birch",)
    assert [failure.code for failure in failures] == ["update.not_finite"]


def test_numbers_that_were_not_offered_are_not_given() -> None:
    left, right = memory_pair()
    ours, theirs = (
        Channel(end, me=me, peer=peer, log=CountingLog(), timeout_s=TIMEOUT_S)
        for end, me, peer in ((left, "coordinator", "amber"), (right, "amber", "coordinator"))
    )
    giving = PlainGiving(theirs, TOPIC)
    giving.offer(ONE, np.array([1.0]), FLOAT32)
    ours.send(TOPIC, Step.GIVE, {"sum": 2})
    with pytest.raises(PeerFailure) as caught:
        giving.handle(theirs.receive(TOPIC, Step.GIVE))
    assert caught.value.code == "peer.protocol"
    ours.close()
    theirs.close()


def test_a_plain_sum_leaves_nothing_to_be_resumed() -> None:
    gathering = PlainGathering()
    assert gathering.pending(TOPIC) is None
    assert gathering.resume(Members({}), TOPIC, 1, deadline_s=1.0).survivors == ()


def test_names_come_in_the_order_of_the_job() -> None:
    assert order_of({"cedar", "amber", "mallory"}, NAMES) == ("amber", "cedar")
