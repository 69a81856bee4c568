from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.parties.network.message import Step
from isthmus.parties.table import Identifier
from isthmus.psi import PassCounts, align_as_initiator, align_as_responder
from isthmus.psi.cipher import CHUNK

JOB = "5" * 64


@pytest.fixture
def align(link, together, executor):
    """Aligns two parties' identifiers; gives the two outcomes and the link."""

    def run(ours, theirs, passes, floors=(1, 1), jobs=(JOB, JOB), **options):
        between = link()
        options = {"executor": executor, **options}
        outcomes = together(
            lambda: align_as_initiator(between.left, ours, passes, floor=floors[0], job_digest=jobs[0], **options),
            lambda: align_as_responder(
                between.right, theirs, passes, floor=floors[1], job_digest=jobs[1], executor=executor
            ),
        )
        return *outcomes, between

    return run


def shared(alignment, identifiers, name="id"):
    return identifiers[name].columns[0][alignment.rows].tolist()


def test_two_parties_find_the_patients_they_share_in_one_order(align, identifiers):
    ours = identifiers(id=["10", "11", "12", None, "13", "13"])
    theirs = identifiers(id=["99", "12", "13", "1-0", "11", "98"])
    lab, insurer, between = align(ours, theirs, [["id"]])
    assert sorted(lab.rows.tolist()) == [0, 1, 2]
    assert sorted(insurer.rows.tolist()) == [1, 3, 4]
    assert shared(lab, ours) == [text.replace("-", "") for text in shared(insurer, theirs)]
    assert lab.rows.dtype == insurer.rows.dtype == np.int64
    assert lab.passes == (PassCounts(linkage_pass=1, null=1, repeated=2, used=3, matched=3),)
    assert insurer.passes == (PassCounts(linkage_pass=1, null=0, repeated=0, used=6, matched=3),)
    assert lab.digest == insurer.digest
    assert len(lab.digest) == 64
    assert [message.step for message in between.left_sent] == [
        Step.POINTS, Step.POINTS, Step.POINTS, Step.SIZE, Step.MATCHES, Step.MATCHES,
    ]  # fmt: skip
    assert [message.step for message in between.right_sent] == [
        Step.POINTS, Step.POINTS, Step.POINTS, Step.DOUBLED, Step.DOUBLED, Step.DOUBLED, Step.SEED, Step.MATCHES,
    ]  # fmt: skip


def test_the_same_patients_have_another_digest_and_order_every_time(align, identifiers):
    ours = identifiers(id=[str(number) for number in range(40)])
    first, second = align(ours, ours, [["id"]])[0], align(ours, ours, [["id"]])[0]
    assert sorted(first.rows) == sorted(second.rows) == list(range(40))
    assert first.rows.tolist() != second.rows.tolist()
    assert first.digest != second.digest


def test_a_second_pass_finds_those_that_the_first_cannot(align, identifiers):
    ours = identifiers(id=["1", "2", None, "4"], name=["ann", "bob", "cy", "dee"])
    theirs = identifiers(id=["4", None, "1", "7"], name=["dee", "CY", "other", "Bob"])
    lab, insurer, _ = align(ours, theirs, [["id"], ["name"]])
    assert set(zip(lab.rows.tolist(), insurer.rows.tolist(), strict=True)) == {(0, 2), (3, 0), (2, 1), (1, 3)}
    assert set(lab.rows[:2].tolist()) == {0, 3}  # passes one after the other
    assert [counts.matched for counts in lab.passes] == [counts.matched for counts in insurer.passes] == [2, 2]
    assert [counts.used for counts in lab.passes] == [3, 2]
    alone, _, _ = align(ours, theirs, [["id"]])
    assert len(alone.rows) == 2


def test_a_row_is_matched_once_even_if_a_later_pass_would_match_it_with_another(align, identifiers):
    ours = identifiers(id=["1", "2"], name=["ann", "bob"])
    theirs = identifiers(id=["1", "3"], name=["bob", "ann"])
    lab, insurer, _ = align(ours, theirs, [["id"], ["name"]])
    assert (lab.rows.tolist(), insurer.rows.tolist()) == ([0], [0])


def test_a_pass_for_which_one_side_has_no_key_is_left_out(align, identifiers):
    ours = identifiers(id=[None, None], name=["ann", "bob"])
    theirs = identifiers(id=["1", "2"], name=["bob", "ann"])
    lab, insurer, between = align(ours, theirs, [["id"], ["name"], ["id"]], floors=(2, 2))
    assert set(zip(lab.rows.tolist(), insurer.rows.tolist(), strict=True)) == {(0, 1), (1, 0)}
    assert [counts.used for counts in lab.passes] == [0, 2, 0]
    assert [counts.used for counts in insurer.passes] == [2, 2, 0]
    assert lab.digest == insurer.digest
    assert [message.fields["size"] for message in between.right_sent if "pass" in message.fields] == [2, 2, 0]


def test_a_first_pass_without_matches_is_no_end_where_any_overlap_will_do(align, identifiers):
    ours = identifiers(id=["1", "2"], name=["ann", "bob"])
    theirs = identifiers(id=["3", "4"], name=["bob", "eve"])
    lab, insurer, _ = align(ours, theirs, [["id"], ["name"]])
    assert (lab.rows.tolist(), insurer.rows.tolist()) == ([1], [0])
    assert lab.digest == insurer.digest


def test_what_differs_in_writing_matches_after_normalisation(align):
    def people(names, surnames, dates, date_format):
        columns = [np.array(values, dtype=object) for values in (names, surnames)]
        return {"name": Identifier(columns), "born": Identifier([np.array(dates, dtype=object)], date_format)}

    ours = people(["Zoë", "Jean-Luc"], ["O'Hara", "Picard"], ["1990-02-01", "1905-07-13"], "%Y-%m-%d")
    theirs = people(["PICARD", "ohara"], ["jean luc", "zoe"], ["13.07.1905", "01.02.1990"], "%d.%m.%Y")
    lab, insurer, _ = align(ours, theirs, [["name", "born"]])
    assert set(zip(lab.rows.tolist(), insurer.rows.tolist(), strict=True)) == {(0, 1), (1, 0)}


def test_progress_rises_with_every_chunk_to_the_end_of_each_pass(align, identifiers):
    told = []
    ours = identifiers(id=[str(number) for number in range(CHUNK + 1)], name=["ann"] + [None] * CHUNK)
    theirs = identifiers(id=["0", "1", "x"], name=["bob", "eve", "ann"])
    align(ours, theirs, [["id"], ["name"]], on_progress=lambda *numbers: told.append(numbers))
    assert told == sorted(told)
    assert [numbers for numbers in told if numbers[0] == 1][-1] == (1, 2, CHUNK + 4, CHUNK + 4)
    assert len([numbers for numbers in told if numbers[0] == 1]) == 3


def test_a_party_makes_its_own_threads_if_it_is_given_none(align, identifiers):
    ours = identifiers(id=["1", "2"])
    lab, insurer, _ = align(ours, ours, [["id"]], executor=None)
    assert lab.digest == insurer.digest


def test_parties_with_different_jobs_do_not_align(align, identifiers):
    ours = identifiers(id=["1", "2"])
    lab, insurer, _ = align(ours, ours, [["id"]], jobs=(JOB, "6" * 64))
    assert (lab.code, insurer.code) == ("peer.protocol", "peer.protocol")


rows = st.lists(
    st.tuples(st.sampled_from([None, *"abcdefgh"]), st.sampled_from([None, *"ABCD"])), min_size=1, max_size=9
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, rows)
def test_the_alignment_is_what_plain_sets_say(align, identifiers, left, right):
    """The oracle: dictionaries of keys that occur once among the rows that are left, pass by pass."""

    def unique(side, key, taken):
        keys = {place: key(person) for place, person in enumerate(side) if place not in taken}
        values = list(keys.values())
        return {value: place for place, value in keys.items() if None not in value and values.count(value) == 1}

    pairs = []
    for key in (lambda person: person[:1], lambda person: (person[0] and "x", person[1])):
        ours = unique(left, key, {pair[0] for pair in pairs})
        theirs = unique(right, key, {pair[1] for pair in pairs})
        pairs += [(ours[value], theirs[value]) for value in ours.keys() & theirs.keys()]

    columns = [
        identifiers(a=[a for a, _ in side], some=[a and "x" for a, _ in side], b=[b for _, b in side])
        for side in (left, right)
    ]
    lab, insurer, _ = align(*columns, [["a"], ["some", "b"]])
    if isinstance(lab, Exception):
        assert not pairs
        # A side without a key tells nobody but itself.
        assert {lab.code, insurer.code} <= {"align.none", "align.no_keys", "peer.gone"}
    else:
        assert set(zip(lab.rows.tolist(), insurer.rows.tolist(), strict=True)) == set(pairs)
        assert lab.digest == insurer.digest
