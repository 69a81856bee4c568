from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isthmus.psi.matching import ascending, has_repeats, match, permutation


def values(*rows):
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16)


def value(number):
    return number.to_bytes(16, "big")


# Few and close together, so that halves agree where wholes do not.
sets = st.sets(st.sampled_from([low + (high << 64) for low in range(4) for high in range(4)] + [2**128 - 1]))


def test_two_sets_match_in_ascending_order():
    ours = values(value(9), value(1 << 100), value(3), value(0))
    theirs = values(value(3), value(7), value(1 << 100), value(0))
    in_ours, in_theirs = match(ours, theirs)
    assert in_ours.tolist() == [3, 2, 1]
    assert in_theirs.tolist() == [3, 0, 2]


def test_values_that_agree_in_their_first_half_alone_do_not_match():
    first, second = (5 << 64) + 1, (5 << 64) + 2
    in_ours, in_theirs = match(values(value(first)), values(value(second)))
    assert len(in_ours) == len(in_theirs) == 0
    assert not has_repeats(values(value(first), value(second)))
    assert has_repeats(values(value(first), value(second), value(first)))


def test_the_order_of_a_seed_is_the_same_everywhere():
    assert permutation(bytes(32), 8).tolist() == [2, 4, 3, 7, 6, 5, 0, 1]


@given(sets, sets, st.randoms())
def test_match_is_the_intersection(left, right, random):
    ours, theirs = sorted(left), sorted(right)
    random.shuffle(ours)
    random.shuffle(theirs)
    in_ours, in_theirs = match(values(*map(value, ours)), values(*map(value, theirs)))
    assert [ours[place] for place in in_ours] == [theirs[place] for place in in_theirs] == sorted(left & right)


@given(st.lists(st.sampled_from([0, 1, 1 << 64, (1 << 64) + 1, 2**128 - 1])))
def test_repeats_are_found_and_values_sorted(numbers):
    rows = values(*map(value, numbers))
    assert has_repeats(rows) == (len(set(numbers)) < len(numbers))
    assert [numbers[place] for place in ascending(rows)] == sorted(numbers)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 300))
def test_an_order_holds_every_position_once(seed, count):
    assert sorted(permutation(seed, count)) == list(range(count))


def test_every_place_is_equally_likely_for_the_first_element():
    counts = np.zeros(5)
    for number in range(5000):
        counts[permutation(number.to_bytes(32, "big"), 5)[0]] += 1
    # Chi-squared with 4 degrees of freedom stays below 23.5 in 9,999 of 10,000 cases; the seeds are fixed.
    assert ((counts - 1000) ** 2 / 1000).sum() < 23.5
