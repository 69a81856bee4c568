"""Two sums over the same content that differ by one party give that party away: nobody helps with the second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import FLOAT32
from isthmus.horizontal.secagg import digest
from isthmus.parties.errors import PolicyRefusal
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.state import State

TOPIC = Topic.TRAIN
NAMES = ("amber", "birch", "cedar", "delta", "ember")


def _repeated(ends: Any, names: Any) -> None:
    for name in names:
        assert isinstance(ends[name], PolicyRefusal), ends[name]
        assert (ends[name].code, ends[name].facts) == ("secagg.repeated", {"party": name})


def test_the_attack_would_work_which_is_why_it_is_refused(make_world: Any) -> None:
    """With homes that forget, the difference of two sums is the update of the party that was left out."""
    world, other = make_world(5), make_world(5)
    values = world.values()
    first, second = world.session(), other.session()
    whole = first.sum(values).total
    without = second.sum(values, parties=world.names[:4]).total  # another content, as if nobody remembered
    ember = FLOAT32.decode(FLOAT32.encode(values["ember"], "ember"), 5)
    assert np.array_equal(whole - without, ember)


@pytest.mark.parametrize("where", ["in the same job", "in a later attempt", "in another job"])
def test_a_model_is_summed_once_whatever_the_round_the_attempt_and_the_job(make_world: Any, where: str) -> None:
    world = make_world(5)
    session, values, rest = world.session(), world.values(), world.names[:4]
    assert session.sum(values).survivors == world.names
    if where != "in the same job":
        assert set(session.close().values()) == {None}
        session = world.session(attempt=2 if where == "in a later attempt" else 1)
    job = {"job": "8" * 64} if where == "in another job" else {}
    assert session.sum(values, number=2, parties=rest, **job).survivors == ()
    _repeated(session.close(), rest)
    for name in rest:
        assert not any(message.fields["sum"] == 2 for message in session.received(name, Step.OFFER))


def test_a_model_whose_sum_was_given_is_refused_at_the_end_as_well(make_world: Any) -> None:
    """Two jobs at once: both have begun before either is unmasked."""
    world = make_world(3)
    session, values = world.session(), world.values()

    def meanwhile(step: Step, fields: Any) -> None:
        if step is Step.SURVIVORS:
            session.channels["amber"].before = None
            content = digest("content", world.content, "").hex()
            assert State(world.homes["amber"]).note_release(content, "another sum", "others", strict=True)

    session.channels["amber"].before = meanwhile
    assert session.sum(values).survivors == ()
    _repeated(session.close(), ["amber"])
    assert not session.received("amber", Step.UNMASK)


def test_a_sum_that_was_never_unmasked_may_be_asked_again(make_world: Any, kill: Any) -> None:
    world = make_world(3)
    values = world.values()
    first = world.session(before={"birch": kill(Step.CONSENT)})
    assert first.sum(values).survivors == ()
    first.close()
    assert world.session(attempt=2).sum(values).survivors == world.names


@pytest.mark.parametrize("step", [Step.OFFER, Step.SHARES, Step.MASKED])
def test_a_sum_of_fewer_than_the_caller_needs_is_not_unmasked_so_that_it_can_be_asked_of_all(
    make_world: Any, kill: Any, step: Step
) -> None:
    world = make_world(5)
    values = world.values()
    first = world.session(before={"birch": kill(step)})
    assert first.sum(values, fewest=5).survivors == ()
    first.close()
    assert not any(first.received(name, Step.UNMASK) for name in world.names)
    second = world.session(attempt=2)
    assert second.gathering.pending(TOPIC) is None
    assert second.sum(values, fewest=5).survivors == world.names


def test_a_party_that_is_lost_once_its_numbers_are_in_the_sum_counts(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    session = world.session(before={"birch": kill(Step.CONSENT)})
    assert session.sum(world.values(), fewest=5).survivors == world.names


def test_statistics_may_be_asked_again_of_the_same_parties(make_world: Any) -> None:
    world = make_world(5)
    session, values = world.session(), world.values()
    rows = dict.fromkeys(world.names, "rows of then")
    first = session.sum(values, strict=False, data=rows)
    second = session.sum(values, number=2, strict=False, data=rows)
    assert (first.survivors, second.survivors) == (world.names, world.names)
    assert np.array_equal(first.total, second.total)
    assert set(session.close().values()) == {None}


def test_statistics_are_not_given_again_with_a_party_fewer(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    values, rows = world.values(), dict.fromkeys(NAMES, "rows of then")
    first = world.session()
    assert first.sum(values, strict=False, data=rows).survivors == world.names
    first.close()
    second = world.session(attempt=2, before={"ember": kill(Step.MASKED)})
    assert second.sum(values, strict=False, data=rows).survivors == ()
    _repeated(second.close(), world.names[:4])
    assert not any(second.received(name, Step.UNMASK) for name in world.names)


def test_statistics_of_other_rows_are_another_sum(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    values = world.values()
    first = world.session()
    assert first.sum(values, strict=False, data=dict.fromkeys(NAMES, "rows of then")).survivors == world.names
    first.close()
    second = world.session(attempt=2, before={"ember": kill(Step.MASKED)})
    again = second.sum(values, strict=False, data=dict.fromkeys(NAMES, "rows of now"))
    assert again.survivors == world.names[:4]


def test_a_model_is_not_summed_again_because_other_rows_lie_behind_it(make_world: Any) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    assert session.sum(values, data=dict.fromkeys(NAMES, "rows of then")).survivors == world.names
    assert session.sum(values, number=2, data=dict.fromkeys(NAMES, "rows of now")).survivors == ()
    _repeated(session.close(), world.names)
