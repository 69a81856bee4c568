"""Plain updates, as the coordinator takes them in."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.horizontal.members import Members, send_vector
from isthmus.horizontal.transform import Packing, Transform
from isthmus.horizontal.updates import gather_updates
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Step, Topic

TALLY = [8.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("scale", "taken"), [(0.5, ["amber", "birch"]), (3e38, ["amber"])])
def test_bytes_whose_scale_makes_them_infinite_are_left_out(scale: float, taken: list[str]) -> None:
    """Krum would take such an update for the nearest of all: its distances are no numbers."""
    packing = Packing((Transform("int8"),), 10)
    ours, theirs = {}, {}
    for name in ("amber", "birch"):
        left, right = memory_pair()
        ours[name] = Channel(left, me="hub", peer=name, log=CountingLog(), timeout_s=5.0)
        theirs[name] = Channel(right, me=name, peer="hub", log=CountingLog(), timeout_s=5.0)
    members = Members(ours)
    members.tell(ours, Topic.TRAIN, Step.ROUND, 1)
    for name, channel in theirs.items():
        channel.send(Topic.TRAIN, Step.OFFER, {"sum": 1})
        own = scale if name == "birch" else 1.0
        send_vector(channel, Topic.TRAIN, Step.VALUES, 1, np.full(10, 255, "u1"), {"tally": TALLY})
        send_vector(channel, Topic.TRAIN, Step.VALUES, 1, np.full(1, own, "<f4"))
    found = list(gather_updates(members, tuple(ours), 1, packing, deadline_s=5.0))
    assert [one.party for one in found] == taken
    assert all(np.isfinite(one.values).all() for one in found)
    assert set(members.gone) == set(ours) - set(taken)
    for channel in (*ours.values(), *theirs.values()):
        channel.close()
