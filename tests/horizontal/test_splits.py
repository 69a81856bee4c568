"""Splits by hash and by column."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.horizontal.splits import Parts, check_rows, split_by_column, split_by_hash
from isthmus.parties.errors import InputError

IDS = np.array([f"p{row}" for row in range(200)], dtype=object)
OUTCOME = (np.arange(200) % 4 == 0).astype(np.int64)


def ids_of(positions: np.ndarray, ids: np.ndarray = IDS) -> set[str]:
    return set(ids[positions].tolist())


def test_every_row_is_in_one_part_and_shares_hold_in_each_stratum():
    parts = split_by_hash(IDS, OUTCOME, 0.2, 0.3, 7)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(everything.tolist()) == list(range(200))
    for part, share in ((parts.train, 0.5), (parts.validation, 0.2), (parts.test, 0.3)):
        assert (OUTCOME[part].sum(), len(part)) == (50 * share, 200 * share)
        assert part.tolist() == sorted(part.tolist())


def test_the_order_of_the_rows_changes_nothing_and_the_seed_does():
    parts, turned = (
        split_by_hash(IDS, OUTCOME, 0.2, 0.2, 7),
        split_by_hash(IDS[::-1], OUTCOME[::-1], 0.2, 0.2, 7),
    )
    assert ids_of(parts.test) == ids_of(turned.test, IDS[::-1])
    assert ids_of(parts.test) != ids_of(split_by_hash(IDS, OUTCOME, 0.2, 0.2, 8).test)


def test_a_split_is_the_same_for_good():
    parts = split_by_hash(IDS[:10], np.zeros(10, np.int64), 0.2, 0.2, 7)
    assert (parts.validation.tolist(), parts.test.tolist()) == ([0, 7], [2, 5])


def test_a_share_of_nothing_is_an_empty_part():
    parts = split_by_hash(IDS, OUTCOME, 0.0, 0.0, 7)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (200, 0, 0)
    assert parts.test.dtype == np.int64


def test_a_column_of_the_partys_own_may_say_the_part():
    parts = split_by_column(np.array(["test", "train", "validation", "train"], dtype=object))
    assert (parts.train.tolist(), parts.validation.tolist(), parts.test.tolist()) == ([1, 3], [2], [0])


def test_too_few_rows_to_learn_from_are_counted():
    parts = Parts(np.array([0]), np.array([1]), np.array([2]))
    with pytest.raises(InputError) as caught:
        check_rows(parts, "north")
    assert (caught.value.code, caught.value.facts) == ("data.few_rows", {"party": "north", "count": 1, "allowed": 2})
    check_rows(parts, "north", least=1)
