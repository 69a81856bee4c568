"""Secure aggregation: it equals the plain sum, whoever drops out where, and the coordinator sees nothing but the sum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import EXACT, FLOAT32, FLOAT64, Encoding
from isthmus.horizontal.secagg import threshold
from isthmus.parties.network.message import Step

PHASES = [Step.OFFER, Step.SHARES, Step.MASKED, Step.CONSENT, Step.UNMASK]


def _plain(values: Any, names: Any, encoding: Encoding = FLOAT32) -> Any:
    """The sum of the words without masks, which is what comes out to the last bit."""
    words = sum(encoding.encode(values[name], name) for name in names)
    return encoding.decode(words, len(next(iter(values.values()))))


@pytest.mark.parametrize(("parties", "allowed"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (9, 7), (10, 7), (64, 43)])
def test_more_than_two_thirds_have_to_be_left(parties: int, allowed: int) -> None:
    assert threshold(parties) == allowed


@pytest.mark.parametrize("encoding", [FLOAT32, FLOAT64, EXACT], ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("parties", [3, 5, 10])
def test_the_masked_sum_is_the_plain_sum_to_the_last_bit(make_world: Any, parties: int, encoding: Encoding) -> None:
    world = make_world(parties)
    session, values = world.session(), world.values()
    gathered = session.sum(values, encoding=encoding)
    assert gathered.survivors == world.names
    assert np.array_equal(gathered.total, _plain(values, world.names, encoding))
    assert set(session.close().values()) == {None}


@pytest.mark.parametrize("step", PHASES)
@pytest.mark.parametrize(("parties", "dropouts"), [(5, 1), (10, 1), (10, 3)])
def test_as_many_as_are_allowed_may_drop_out_in_each_phase(
    make_world: Any, kill: Any, parties: int, dropouts: int, step: Step
) -> None:
    world = make_world(parties)
    lost = world.names[1 : 1 + dropouts]
    session, values = world.session(before=dict.fromkeys(lost, kill(step))), world.values()
    gathered = session.sum(values)
    in_the_sum = step in (Step.CONSENT, Step.UNMASK)  # their numbers had come by then
    left = world.names if in_the_sum else tuple(name for name in world.names if name not in lost)
    assert gathered.survivors == left
    assert np.array_equal(gathered.total, _plain(values, left))
    session.close()
