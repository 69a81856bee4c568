"""Killed in the middle of a masked sum, and started again: the same sum, with the same shares, or none."""

from __future__ import annotations

import stat
import time
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import EXACT, FLOAT32
from isthmus.horizontal.secagg import sum_digest
from isthmus.horizontal.secagg_memory import HeldSum
from isthmus.horizontal.summing import Sum
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.network.message import Step, Topic

TOPIC, TIMEOUT_S, SOON_S = Topic.TRAIN, 30.0, 5.0


class Killed(Exception):
    """The coordinator."""


def _kill_coordinator(session: Any, step: Step, *, at: str) -> None:
    """Kill it when it is about to send a step to one of the parties."""

    def before(sent: Step, fields: Any) -> None:
        if sent is step:
            raise Killed

    session.channels[at].before = before


def _plain(values: Any, names: Any) -> Any:
    return FLOAT32.decode(sum(FLOAT32.encode(values[name], name) for name in names), 5)


def _resume(session: Any, number: int = 1, deadline_s: float = SOON_S) -> Any:
    return session.gathering.resume(session.members, TOPIC, number, deadline_s=deadline_s)


def _interrupted(world: Any, step: Step, at: str = "amber", **options: Any) -> tuple[Any, Any]:
    """A first attempt in which the coordinator is killed; and its numbers."""
    session, values = world.session(before=options.pop("before", None)), world.values()
    _kill_coordinator(session, step, at=at)
    with pytest.raises(Killed):
        session.sum(values, number=9, **options)
    session.end()
    return session, values


@pytest.mark.parametrize("at", ["amber", "cedar", "ember"])
@pytest.mark.parametrize("step", [Step.SURVIVORS, Step.SIGNATURES])
def test_a_coordinator_that_was_killed_goes_on_with_the_sum(make_world: Any, step: Step, at: str) -> None:
    world = make_world(5)
    _, values = _interrupted(world, step, at)
    again = world.session(attempt=2)
    assert again.gathering.pending(TOPIC) == Sum("1" * 64, 1, 9, world.content, world.names)
    gathered = _resume(again)
    assert gathered.survivors == world.names
    assert np.array_equal(gathered.total, _plain(values, world.names))
    assert again.sum(values, number=2, content="6" * 60 + world.content[:4]).survivors == world.names
    assert set(again.close().values()) == {None}


def test_the_sum_of_a_coordinator_that_was_killed_once_it_had_it_can_be_had_again(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    session, values = world.session(before={"birch": kill(Step.MASKED)}), world.values()
    first = session.sum(values)
    session.end()
    again = _resume(world.session(attempt=2))
    assert first.survivors == again.survivors == ("amber", "cedar", "delta", "ember")
    assert np.array_equal(first.total, again.total)


def test_a_party_that_is_asked_again_gives_the_same_shares_byte_for_byte(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    session = world.session(before={"birch": kill(Step.MASKED)})
    session.sum(world.values())
    session.end()
    again = world.session(attempt=2)
    _resume(again)
    again.close()
    for name in ("amber", "cedar", "delta", "ember"):
        for step in (Step.CONSENT, Step.UNMASK):
            (first,), (second,) = session.received(name, step), again.received(name, step)
            assert {**first.fields, "sum": 0} == {**second.fields, "sum": 0}


@pytest.mark.parametrize("step", [Step.CONSENT, Step.UNMASK])
def test_a_party_that_was_killed_helps_when_it_is_back(make_world: Any, kill: Any, step: Step) -> None:
    world = make_world(3)  # of three, none can be spared
    session, values = world.session(before={"birch": kill(step)}), world.values()
    assert session.sum(values).survivors == ()
    session.end()
    again = world.session(attempt=2)
    gathered = _resume(again)
    assert np.array_equal(gathered.total, _plain(values, world.names))
    assert set(again.close().values()) == {None}


def test_a_party_that_was_killed_before_its_numbers_left_is_not_in_the_sum_that_is_resumed(
    make_world: Any, kill: Any
) -> None:
    world = make_world(5)
    _, values = _interrupted(world, Step.SIGNATURES, before={"birch": kill(Step.MASKED)})
    again = world.session(attempt=2)
    gathered = _resume(again)
    assert gathered.survivors == ("amber", "cedar", "delta", "ember")
    assert np.array_equal(gathered.total, _plain(values, gathered.survivors))
    assert set(again.close().values()) == {None}


def test_an_exact_sum_is_resumed_too(make_world: Any) -> None:
    world = make_world(3)
    _, values = _interrupted(world, Step.SURVIVORS, encoding=EXACT, strict=False)
    gathered = _resume(world.session(attempt=2))
    words = sum(EXACT.encode(values[name], name) for name in world.names)
    assert np.array_equal(gathered.total, EXACT.decode(words, 5))


def test_one_that_lost_its_file_can_be_spared_where_dropouts_can(make_world: Any) -> None:
    world = make_world(5)
    _, values = _interrupted(world, Step.SIGNATURES, "cedar")
    world.memory("amber").forget(TOPIC)
    again = world.session(attempt=2)
    gathered = _resume(again)
    assert gathered.survivors == world.names
    assert np.array_equal(gathered.total, _plain(values, world.names))
    assert set(again.close().values()) == {None}
    assert not again.received("amber", Step.UNMASK)


@pytest.mark.parametrize(("step", "given"), [(Step.SURVIVORS, False), (Step.SIGNATURES, True)])
def test_with_too_few_files_left_there_is_no_sum_and_no_second_one_where_shares_were_given(
    make_world: Any, step: Step, given: bool
) -> None:
    world = make_world(3)
    _, values = _interrupted(world, step, "cedar")  # amber and birch had their orders
    world.memory("birch").forget(TOPIC)
    again = world.session(attempt=2)
    assert _resume(again).survivors == ()
    anew = again.sum(values, number=2)
    ends = again.close()
    if given:
        assert anew.survivors == ()
        for name in ("amber", "birch"):
            assert isinstance(ends[name], PolicyRefusal)
            assert ends[name].code == "secagg.repeated"
    else:
        assert np.array_equal(anew.total, _plain(values, world.names))


def test_a_resumed_sum_has_the_survivors_that_were_signed(make_world: Any) -> None:
    world = make_world(5)
    _interrupted(world, Step.SIGNATURES)
    again = world.session(attempt=2)

    def others(step: Step, fields: Any) -> None:
        if step is Step.SURVIVORS:
            fields["survivors"] = list(world.names[:4])

    again.channels["amber"].before = others
    _resume(again)
    found = again.close()["amber"]
    assert isinstance(found, PolicyRefusal)
    assert found.code == "secagg.survivors"


def test_shares_of_another_sum_are_not_given(make_world: Any) -> None:
    world = make_world(3)
    _interrupted(world, Step.SIGNATURES)
    memory = world.memory("amber")
    held = memory.held(TOPIC)
    assert isinstance(held, HeldSum)
    other = Sum("1" * 64, 1, 8, world.content, world.names)
    memory.hold(TOPIC, HeldSum(**{**vars(held), "one": sum_digest(other)}))
    again = world.session(attempt=2)
    assert _resume(again).survivors == ()
    assert set(again.close().values()) == {None}
    (consent,) = again.received("amber", Step.CONSENT)
    assert "signature" not in consent.fields
    assert not again.received("amber", Step.UNMASK)


def test_what_a_party_holds_is_erased_when_its_next_sum_begins(make_world: Any) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    session.sum(values)
    assert all(world.memory(name).held(TOPIC) is not None for name in world.names)
    one = session.ask(values, number=2, content="9" * 60 + world.content[:4])
    session.members.hear(world.names, TOPIC, Step.OFFER, one.number, deadline=time.monotonic() + TIMEOUT_S)
    assert all(world.memory(name).held(TOPIC) is None for name in world.names)
    session.end()
    assert _resume(world.session(attempt=2)).survivors == ()


def test_what_a_party_holds_of_another_topic_stays(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    session.sum(world.values())
    session.close()
    memory = world.memory("amber")
    memory.forget(Topic.STATISTICS)
    assert memory.held(TOPIC) is not None
    assert memory.held(Topic.STATISTICS) is None


def test_what_a_party_holds_is_read_by_its_owner_alone_and_comes_back_as_it_was(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    one = session.ask(world.values())
    session.gathering.gather(session.members, TOPIC, one, 5, FLOAT32, deadline_s=TIMEOUT_S)
    session.close()
    (path,) = (world.folder / "amber" / "run").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("secagg-train.json", 0o600)
    held = world.memory("amber").held(TOPIC)
    assert held is not None
    assert (held.one, held.asked, held.survivors) == (sum_digest(one), world.names, world.names)
    assert {len(share) for share in (*held.seeds.values(), *held.keys.values())} == {66}


def test_what_a_killed_write_left_behind_neither_is_read_nor_lends_its_mode(make_world: Any) -> None:
    world = make_world(3)
    folder = world.folder / "amber" / "run"
    folder.mkdir(parents=True)
    (folder / "secagg-train.json.partial").write_text("half a")
    (folder / "secagg-train.json.partial").chmod(0o644)
    assert world.memory("amber").held(TOPIC) is None
    session = world.session()
    session.sum(world.values())
    session.close()
    (path,) = folder.iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("secagg-train.json", 0o600)


def test_a_party_that_cannot_write_down_what_it_holds_sends_no_numbers(make_world: Any) -> None:
    world = make_world(3)
    (world.folder / "amber").mkdir(parents=True)
    (world.folder / "amber" / "run").write_text("a file where the run folder should be")
    session = world.session()
    assert session.sum(world.values()).survivors == ()
    found = session.close()["amber"]
    assert isinstance(found, InputError)
    assert found.code == "disk.denied"
    assert not session.received("amber", Step.MASKED)


def test_what_the_coordinator_holds_is_erased_when_it_gathers_anew_or_forgets(make_world: Any) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    assert session.gathering.pending(TOPIC) is None
    one = session.ask(values)
    session.gathering.gather(session.members, TOPIC, one, 5, FLOAT32, deadline_s=TIMEOUT_S)
    assert session.gathering.pending(TOPIC) == one
    session.gathering.forget(TOPIC)
    assert session.gathering.pending(TOPIC) is None
    assert _resume(session).survivors == ()
