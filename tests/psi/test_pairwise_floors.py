"""What is said, and what is not, when fewer patients are shared than a party accepts."""

from __future__ import annotations

import pytest

from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.network.message import Step
from isthmus.psi import align_as_initiator, align_as_responder

JOB = "5" * 64
OURS = [str(number) for number in range(12)]
THEIRS = [str(number) for number in range(8, 20)]  # four are shared


@pytest.fixture
def align(link, together, executor, identifiers):
    def run(floors, ours=OURS, theirs=THEIRS, passes=(("id",),)):
        between = link()
        sides = [(align_as_initiator, between.left, ours), (align_as_responder, between.right, theirs)]
        outcomes = together(
            *(
                lambda side=side, floor=floor: side[0](
                    side[1],
                    side[2] if isinstance(side[2], dict) else identifiers(id=side[2]),
                    passes,
                    floor=floor,
                    job_digest=JOB,
                    executor=executor,
                )
                for side, floor in zip(sides, floors, strict=True)
            )
        )
        return *outcomes, between

    return run


def steps(sent):
    return {message.step for message in sent}


@pytest.mark.parametrize("floors", [(4, 4), (1, 4), (4, 1), (2, 3)])
def test_a_floor_that_is_reached_is_no_obstacle(align, floors):
    lab, insurer, _ = align(floors)
    assert len(lab.rows) == len(insurer.rows) == 4


def test_below_the_active_party_s_floor_neither_size_nor_seed_nor_bitmap_is_sent(align):
    lab, insurer, between = align((5, 1))
    assert isinstance(lab, PolicyRefusal)
    assert isinstance(insurer, PolicyRefusal)
    assert lab.code == insurer.code == "policy.too_few"
    assert between.left_sent[-1].step is Step.SIZE
    assert between.left_sent[-1].fields == {"enough": False}
    assert not between.left_sent[-1].arrays
    assert steps(between.left_sent) == {Step.POINTS, Step.SIZE}
    assert steps(between.right_sent) == {Step.POINTS, Step.DOUBLED}


def test_below_the_passive_party_s_floor_neither_seed_nor_bitmap_is_sent(align):
    lab, insurer, between = align((1, 5))
    assert lab.code == insurer.code == "policy.too_few"
    assert between.right_sent[-1].step is Step.SEED
    assert between.right_sent[-1].fields == {"enough": False}
    assert not between.right_sent[-1].arrays
    assert steps(between.left_sent) == {Step.POINTS, Step.SIZE}


def test_the_floor_is_judged_on_the_first_pass_alone(align, identifiers):
    ours = identifiers(id=["1", "2", "3", "4"], name=["ann", "bob", "cy", "dee"])
    theirs = identifiers(id=["1", "2", "5", "6"], name=["eve", "fay", "cy", "dee"])
    lab, _, _ = align((2, 2), ours, theirs, [["id"], ["name"]])
    assert len(lab.rows) == 4
    lab, insurer, between = align((3, 3), ours, theirs, [["id"], ["name"]])
    assert lab.code == insurer.code == "policy.too_few"
    assert {message.fields.get("pass") for message in between.left_sent} <= {None, 1}


def test_later_passes_may_match_fewer_than_the_floor_or_none(align, identifiers):
    ours = identifiers(id=["1", "2", "3"], name=["ann", "bob", "cy"], town=["x", "y", "z"])
    theirs = identifiers(id=["1", "2", "5"], name=["eve", "fay", "dee"], town=["x", "y", "z"])
    lab, insurer, _ = align((2, 2), ours, theirs, [["id"], ["name"], ["town"]])
    assert [counts.matched for counts in lab.passes] == [counts.matched for counts in insurer.passes] == [2, 0, 1]


def test_no_shared_patient_is_an_input_error_where_any_overlap_would_do(align):
    lab, insurer, between = align((1, 1), ["1", "2"], ["3", "4"])
    assert isinstance(lab, InputError)
    assert isinstance(insurer, InputError)
    assert lab.code == insurer.code == "align.none"
    assert Step.SEED not in steps(between.right_sent)
    assert Step.MATCHES not in steps(between.left_sent)


@pytest.mark.parametrize("floors", [(1, 2), (2, 1), (2, 2)])
def test_no_shared_patient_is_a_refusal_where_a_party_has_a_floor(align, floors):
    lab, insurer, _ = align(floors, ["1", "2"], ["3", "4"])
    assert lab.code == insurer.code == "policy.too_few"


def test_a_party_whose_keys_are_all_repeated_shares_nobody(align):
    lab, insurer, _ = align((1, 1), ["1", "1"], ["1", "2"])
    assert lab.code == insurer.code == "align.none"
    lab, insurer, _ = align((2, 1), ["1", "1"], ["1", "2"])
    assert lab.code == insurer.code == "policy.too_few"


@pytest.mark.parametrize(("ours", "theirs"), [(OURS[-1:], THEIRS), (OURS, THEIRS[:1])])
@pytest.mark.parametrize("floors", [(4, 4), (1, 4), (4, 1)])
def test_a_set_smaller_than_a_floor_is_refused_before_any_point_leaves(align, floors, ours, theirs):
    lab, insurer, between = align(floors, ours, theirs)
    assert lab.code == insurer.code == "policy.too_few"
    assert steps(between.left_sent) == steps(between.right_sent) == {Step.POINTS}
    assert not any(message.arrays for message in (*between.left_sent, *between.right_sent))
