"""Statistics under a coordinator that somebody else has taken over, or that sends what is no answer."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.counting import OwnRows, Range, binned_shapes, counted_shapes
from isthmus.horizontal.members import Members
from isthmus.horizontal.request import CountTable, Grouping, StatisticsRequest
from isthmus.horizontal.schema import ColumnSpec
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.statistics import _Asking, collect, standards_request
from isthmus.horizontal.statistics_party import StatisticsParty
from isthmus.horizontal.summing import PlainGathering, PlainGiving
from isthmus.parties.errors import IsthmusError, PeerFailure
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.state import State
from isthmus.parties.table import Column

from ..kept_open import kept_open, make_state

JOB, NAMES = "1" * 64, ("amber", "birch", "cedar", "delta", "ember")
REQUEST = StatisticsRequest((ColumnSpec("age", "number"),), bins=8, floor=1)
Ask = Callable[[Members, SecureGathering], Any]


def _rows(request: StatisticsRequest, name: str) -> OwnRows:
    values = np.random.default_rng(NAMES.index(name)).normal(60, 9, 40)
    return OwnRows(request, [Column("age", "number", values)], {}, len(values), party=name)


def _run(folder: Path, run: str, ask: Ask, ends: dict[str, str | None] | None = None) -> Any:
    """What a coordinator gets that asks what it likes; `ends` takes in with which codes the parties end."""
    ends = {} if ends is None else ends
    for name in NAMES:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "party.yaml").write_text(f"name: {name}")
        make_state(folder / name)
    homes = {name: PartyHome(folder / name) for name in NAMES}
    identities = {name: Identity(home) for name, home in homes.items()}
    keys = {name: identity.public for name, identity in identities.items()}
    ours: dict[str, Channel] = {}

    def party(name: str, channel: Channel) -> None:
        memory = SumMemory(folder / name / run, State(homes[name]), party=name)
        giving = SecureGiving(channel, Topic.STATISTICS, identities[name], keys, memory)
        try:
            StatisticsParty(
                channel, giving, REQUEST, _rows(REQUEST, name), parties=NAMES, job_digest=JOB, attempt=1, floor=1
            ).run()
            ends[name] = None
        except IsthmusError as error:
            ends[name] = error.code
            channel.close()

    threads = []
    for name in NAMES:
        left, right = memory_pair()
        ours[name] = Channel(left, me="hub", peer=name, log=CountingLog(), timeout_s=10.0)
        theirs = Channel(right, me=name, peer="hub", log=CountingLog(), timeout_s=10.0)
        threads.append(threading.Thread(target=party, args=(name, theirs), daemon=True))
        threads[-1].start()
    with kept_open(folder / name for name in NAMES):
        try:
            return ask(Members(ours), SecureGathering(folder / "hub" / run, party="hub"))
        finally:
            for channel in ours.values():
                channel.close()
            for thread in threads:
                thread.join(20)


def _histogram(low: float, asked: Mapping[str, Sequence[str]]) -> Ask:
    """Ask for the two first sums, each of some parties; the range begins where the coordinator likes."""

    def ask(members: Members, gathering: SecureGathering) -> Any:
        asking = _Asking(members, gathering, REQUEST, JOB, 1, 1, 4, 5.0, None)
        asking.parties = tuple(asked["counted"])
        asking.ask("counted", counted_shapes(REQUEST))
        asking.parties, asking._allowed, ranges = tuple(asked["binned"]), 4, [Range(low, 128.0)]
        return asking.ask("binned", binned_shapes(REQUEST, ranges), ranges)["bins age"]

    return ask


def test_a_range_that_is_shifted_by_a_trifle_does_not_give_a_party_away(tmp_path: Path) -> None:
    """The difference of two histograms, over all and over all but one, is the one's."""
    everyone = {"counted": NAMES, "binned": NAMES}
    first = _run(tmp_path, "first", _histogram(0.0, everyone))
    again = _run(tmp_path, "again", _histogram(1e-9, everyone))
    assert again.tolist() == first.tolist()  # of the same parties it may be asked as often as one likes
    with pytest.raises(PeerFailure):
        _run(tmp_path, "third", _histogram(2e-9, {"counted": NAMES, "binned": NAMES[:4]}), ends := {})
    assert {ends[name] for name in NAMES[:4]} == {"secagg.repeated"}


def test_parties_that_are_told_different_ranges_come_to_no_sum(tmp_path: Path) -> None:
    """Told that nothing is asked of the column, all but one would add nothing to the one's histogram."""

    def ask(members: Members, gathering: SecureGathering) -> Any:
        tell = members.tell

        def hijacked(names: Sequence[str], topic: Topic, step: Step, number: int, *rest: Any, **more: Any) -> None:
            for name in names:
                told = rest
                if step is Step.ASK and rest[0]["pass"] == "binned" and name != "amber":
                    told = ({**rest[0], "ranges": [[1e6, 1e6 + 1]]},)
                tell([name], topic, step, number, *told, **more)

        members.tell = hijacked  # type: ignore[method-assign]
        return _histogram(0.0, {"counted": NAMES, "binned": NAMES})(members, gathering)

    with pytest.raises(PeerFailure):
        _run(tmp_path, "first", ask, ends := {})
    assert {*ends.values()} == {"secagg.signature"}


def _one_party(messages: Sequence[tuple[Step, dict[str, Any], dict[str, Any]]], *, standards: bool = False) -> Any:
    """How a party ends that is sent these messages."""
    left, right = memory_pair()
    hub = Channel(left, me="hub", peer="amber", log=CountingLog(), timeout_s=5.0)
    channel = Channel(right, me="amber", peer="hub", log=CountingLog(), timeout_s=5.0)
    request = standards_request(REQUEST.columns, 1) if standards else REQUEST
    for step, fields, arrays in messages:
        digest = {"request": request.digest()} if "request" in fields else {}
        hub.send(Topic.STATISTICS, step, {**fields, **digest}, arrays)
    party = StatisticsParty(
        channel, PlainGiving(channel, Topic.STATISTICS), request, _rows(request, "amber"), parties=NAMES,
        job_digest=JOB, attempt=1, floor=1,
    )  # fmt: skip
    try:
        return party.standardisation() if standards else party.run()
    finally:
        hub.close()
        channel.close()


@pytest.mark.parametrize("parties", [[["amber"]], ["amber", {"birch": 1}], ["amber", None], {"amber": 1}, "amber", 7])
def test_a_sum_over_what_are_no_names_is_refused(parties: Any) -> None:
    fields = {"sum": 1, "pass": "counted", "request": "", "floor": 1, "parties": parties, "ranges": [], "centres": []}
    with pytest.raises(PeerFailure) as caught:
        _one_party([(Step.ASK, fields, {})])
    assert caught.value.code == "peer.protocol"


def _codes(*codes: Any) -> bytes:
    return json.dumps({"codes": codes}).encode()


NO_RESULTS = {
    "nothing": b"",
    "no JSON": b"\xff",
    "a list": b"[]",
    "a text": b'"codes"',
    "nested": b"[" * 100_000,
    "no codes": b"{}",
    "another column": _codes(["weight", 0.0, 1.0, False]),
    "a column twice": _codes(["age", 0.0, 1.0, False], ["age", 0.0, 1.0, False]),
    "no scale": _codes(["age", 0.0, 0.0, False]),
    "a scale below nought": _codes(["age", 0.0, -1.0, False]),
    "a scale that is no number": b'{"codes": [["age", 0, NaN, false]]}',
    "a mean without end": b'{"codes": [["age", Infinity, 1, false]]}',
    "a mean that no float holds": b'{"codes": [["age", 1' + b"0" * 400 + b", 1, false]]}",
    "a mean that is text": _codes(["age", "x", 1.0, False]),
}


@pytest.mark.parametrize("text", NO_RESULTS.values(), ids=NO_RESULTS)
def test_codes_that_are_none_are_refused(text: bytes) -> None:
    with pytest.raises(PeerFailure) as caught:
        result = {"result": np.frombuffer(text, dtype=np.uint8)}
        _one_party([(Step.RESULT, {"sum": 1}, result)], standards=True)
    assert caught.value.code == "peer.protocol"


@pytest.mark.parametrize("text", [b"[]", b"7", b'"x"', b"[" * 100_000, b'{"floor": 1}', b'{"parties": 7, "floor": 1}'])
def test_a_result_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(PeerFailure) as caught:
        _one_party([(Step.RESULT, {"sum": 1}, {"result": np.frombuffer(text, dtype=np.uint8)})])
    assert caught.value.code == "peer.protocol"


@pytest.mark.parametrize("ranges", [[[-1.7e308, 1.7e308]], [[0.0, 5e-324]], [[1.0, 1.0]], [[-5, 2**64 - 1]], [[3, 2]]])
def test_whatever_range_is_announced_a_party_answers_or_refuses(ranges: Any) -> None:
    fields = {"sum": 1, "pass": "counted", "request": "", "floor": 1, "parties": ["amber"], "ranges": [], "centres": []}
    binned = {**fields, "sum": 2, "pass": "binned", "ranges": ranges}
    spread = {**binned, "sum": 3, "pass": "spread", "centres": [-1.7e308]}
    with pytest.raises(IsthmusError) as caught:
        _one_party([(Step.ASK, one, {}) for one in (fields, binned, spread, spread)])
    assert caught.value.code in ("peer.protocol", "data.too_large")


LIES = {"a count below nought": lambda counted: counted - 50, "margins of other cells": lambda counted: counted + 1}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_counts_that_no_rows_could_have_given_are_a_partys_fault_and_not_ours(lie: Callable[[Any], Any]) -> None:
    sex = ColumnSpec("sex", "category", ("f", "m"))
    request = StatisticsRequest((*REQUEST.columns, sex), (CountTable("sex", (Grouping("sex"),)),), bins=8, floor=2)
    ours: dict[str, Channel] = {}
    threads = []
    for name in NAMES[:3]:
        left, right = memory_pair()
        ours[name] = Channel(left, me="hub", peer=name, log=CountingLog(), timeout_s=5.0)
        channel = Channel(right, me=name, peer="hub", log=CountingLog(), timeout_s=5.0)
        ages = np.random.default_rng(NAMES.index(name)).normal(60, 9, 40)
        columns = [Column("age", "number", ages), Column("sex", "category", np.array(["f", "m"] * 20, dtype=object))]
        rows = OwnRows(request, columns, {}, 40, party=name)
        if name == "birch":
            rows.counted = lambda counted=rows.counted: lie(counted())  # type: ignore[method-assign]
        party = StatisticsParty(
            channel, PlainGiving(channel, Topic.STATISTICS), request, rows, parties=NAMES, job_digest=JOB, attempt=1,
            floor=1,
        )  # fmt: skip

        def side(party: StatisticsParty = party) -> None:
            with contextlib.suppress(PeerFailure):
                party.run()

        threads.append(threading.Thread(target=side, daemon=True))
        threads[-1].start()
    with pytest.raises(PeerFailure) as caught:
        collect(Members(ours), PlainGathering(), request, job_digest=JOB, attempt=1, floor=2, deadline_s=5.0)
    assert caught.value.code == "sum.impossible"
    for channel in ours.values():
        channel.close()
    for thread in threads:
        thread.join(20)
