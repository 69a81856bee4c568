from __future__ import annotations

import time

import numpy as np
import pytest

from isthmus.parties.network.message import Step, Topic
from isthmus.psi import align_active, align_as_initiator, align_passive

JOB = "5" * 64


@pytest.fixture
def align(link, together, executor, identifiers):
    """The first set is the active party's; gives the outcomes in order, and the links."""

    def run(*sets, floors=None, timeout_s=20.0, on_progress=None):
        floors = floors or [1] * len(sets)
        names = [f"hospital-{number}" for number in range(1, len(sets))]
        links = {name: link("lab", name, timeout_s) for name in names}
        options = {"job_digest": JOB, "executor": executor}

        def active():
            channels = {name: between.left for name, between in links.items()}
            try:
                return align_active(
                    channels, identifiers(id=sets[0]), [["id"]], floor=floors[0], on_progress=on_progress, **options
                )
            finally:
                for channel in channels.values():
                    channel.close()

        def passive(between, ids, floor):
            try:
                return align_passive(between.right, identifiers(id=ids), [["id"]], floor=floor, **options)
            finally:
                between.right.close()

        outcomes = together(
            active,
            *(
                lambda between=between, ids=ids, floor=floor: passive(between, ids, floor)
                for between, ids, floor in zip(links.values(), sets[1:], floors[1:], strict=True)
            ),
        )
        return outcomes, list(links.values())

    return run


def common_steps(sent):
    return [message.fields for message in sent if message.step is Step.COMMON]


def test_with_one_passive_party_it_is_the_pairwise_alignment(align):
    (lab, hospital), (between,) = align(["1", "2", "3"], ["3", "1", "4"])
    assert set(zip(lab.rows.tolist(), hospital.rows.tolist(), strict=True)) == {(0, 1), (2, 0)}
    assert lab.digest == hospital.digest
    assert common_steps(between.left_sent) == [{"more": False}]
    assert common_steps(between.right_sent) == []


def test_three_parties_find_those_whom_all_share_in_one_order(align):
    sets = (["1", "2", "3", "4", "5"], ["5", "4", "3", "9", "1"], ["7", "3", "2", "5", "4", "0"])
    outcomes, links = align(*sets)
    orders = [[ids[row] for row in outcome.rows] for ids, outcome in zip(sets, outcomes, strict=True)]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == ["3", "4", "5"]
    assert len({outcome.digest for outcome in outcomes}) == 1
    assert [counts.matched for counts in outcomes[0].passes] == [4, 4]
    assert [counts.matched for counts in outcomes[1].passes] == [4]
    assert [outcome.rows.dtype for outcome in outcomes] == [np.int64] * 3
    # The positions were sent after both sides had judged the size.
    fields = common_steps(links[0].left_sent)
    assert [sorted(each) for each in fields] == [["more"], ["enough", "size"], ["enough", "leaves"]]


def test_four_parties_align_with_progress_over_all_passes(align):
    everyone = [str(number) for number in range(30)]
    told = []
    outcomes, _ = align(everyone, everyone[5:], everyone[:20], everyone[::-1], on_progress=lambda *n: told.append(n))
    assert len(outcomes[0].rows) == 15
    assert len({outcome.digest for outcome in outcomes}) == 1
    assert told == sorted(told)
    assert {(index, units) for index, units, _, _ in told} == {(1, 3), (2, 3), (3, 3)}


@pytest.mark.parametrize("floors", [(3, 1, 1), (1, 1, 3), (1, 3, 1)])
def test_below_any_floor_no_position_of_the_common_patients_is_sent(align, floors):
    # Three are shared with each, two by all.
    outcomes, links = align(["1", "2", "3", "4"], ["1", "2", "3"], ["2", "3", "4"], floors=floors)
    assert [outcome.code for outcome in outcomes] == ["policy.too_few"] * 3
    for between in links:
        assert not any(message.arrays for message in between.left_sent if message.step is Step.COMMON)
    if floors[0] == 3:
        assert common_steps(links[0].left_sent)[1:] == [{"enough": False}]


def test_patients_that_are_shared_in_pairs_alone_are_none(align):
    outcomes, _ = align(["1", "2"], ["1"], ["2"])
    assert [outcome.code for outcome in outcomes] == ["align.none"] * 3


def test_a_refusal_in_one_pair_ends_the_waiting_of_the_others(align):
    start = time.monotonic()
    outcomes, _ = align(["1", "2"], ["1", "9"], ["1", "2"], floors=(1, 2, 1))
    assert [outcome.code for outcome in outcomes] == ["policy.too_few", "policy.too_few", "peer.gone"]
    assert time.monotonic() - start < 5


def test_a_party_waits_for_its_turn_longer_than_its_deadline(link, together, executor, identifiers):
    first, second = link("lab", "early", 0.6), link("lab", "late", 0.6)
    ids = identifiers(id=["1", "2"])
    options = {"floor": 1, "job_digest": JOB, "executor": executor}

    def early():
        for _ in range(5):  # this party takes its time, and says so
            first.right.send(Topic.ALIGN, Step.POINTS, {"working": True})
            time.sleep(0.25)
        return align_passive(first.right, ids, [["id"]], **options)

    outcomes = together(
        lambda: align_active({"early": first.left, "late": second.left}, ids, [["id"]], **options),
        early,
        lambda: align_passive(second.right, ids, [["id"]], **options),
    )
    assert len({outcome.digest for outcome in outcomes}) == 1


def test_a_passive_party_refuses_a_common_alignment_without_its_part(link, together, executor, identifiers):
    between = link()
    ids = identifiers(id=["1", "2"])
    options = {"floor": 1, "job_digest": JOB, "executor": executor}

    def active():
        align_as_initiator(between.left, ids, [["id"]], **options)
        between.left.send(Topic.ALIGN, Step.COMMON, {"more": True})
        between.left.send(Topic.ALIGN, Step.COMMON, {"enough": True, "size": 1})
        between.left.receive(Topic.ALIGN, Step.COMMON)
        positions = np.array([1], dtype="<u4")
        between.left.send(Topic.ALIGN, Step.COMMON, {"enough": True, "leaves": ["0" * 64]}, {"positions": positions})

    _, passive = together(active, lambda: align_passive(between.right, ids, [["id"]], **options))
    assert passive.code == "peer.protocol"
