from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.vertical import split_rows
from isthmus.vertical.batches import batches, epoch_order, shuffled

DIGEST = "ab" * 32
ROWS = np.array([3, 5, 8, 13, 21, 34])


# The literal orders are part of the protocol: a party with another version of isthmus or NumPy must find the same.
def test_orders_are_those_that_were_written_down():
    assert shuffled(np.arange(12), "test").tolist() == [9, 4, 10, 7, 2, 6, 8, 3, 1, 11, 0, 5]
    assert epoch_order(ROWS, seed=7, epoch=1).tolist() == [3, 5, 21, 8, 34, 13]
    assert epoch_order(ROWS, seed=7, epoch=2).tolist() == [21, 13, 3, 8, 34, 5]


def test_the_split_is_the_one_that_was_written_down():
    parts = split_rows(20, 0.2, 0.2, 7, DIGEST)
    assert parts.train.tolist() == [0, 1, 3, 5, 6, 7, 8, 12, 13, 15, 17, 19]
    assert parts.validation.tolist() == [2, 10, 16, 18]
    assert parts.test.tolist() == [4, 9, 11, 14]


def test_another_process_whose_global_generator_was_seeded_finds_the_same_order():
    program = (
        "import numpy as np; np.random.seed(9)\n"
        "from isthmus.vertical.batches import epoch_order\n"
        "print(epoch_order(np.array([3, 5, 8, 13, 21, 34]), 7, 2).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[21, 13, 3, 8, 34, 5]"


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 3000), st.floats(0.01, 0.4), st.floats(0.01, 0.4), st.integers(0, 2**63 - 1))
def test_every_row_is_in_exactly_one_part(count: int, validation: float, test: float, seed: int):
    parts = split_rows(count, validation, test, seed, DIGEST)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.array_equal(np.sort(together), np.arange(count))
    assert (len(parts.validation), len(parts.test)) == (round(count * validation), round(count * test))
    for part in (parts.train, parts.validation, parts.test):
        assert np.all(np.diff(part) > 0)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=200), st.integers(0, 2**63 - 1), st.integers(1, 10**4))
def test_every_epoch_has_every_training_row_once(rows: set[int], seed: int, epoch: int):
    order = epoch_order(np.array(sorted(rows)), seed, epoch)
    assert sorted(order.tolist()) == sorted(rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 400))
def test_batches_are_the_order_cut_into_pieces(rows: int, size: int):
    found = list(batches(np.arange(rows)[::-1], size))
    assert np.array_equal(np.concatenate(found), np.arange(rows)[::-1])
    assert all(len(batch) == size for batch in found[:-1])
    assert 1 <= len(found[-1]) <= size


@pytest.mark.parametrize(("seed", "epoch"), [(8, 1), (7, 2)])
def test_another_seed_or_epoch_is_another_order(seed: int, epoch: int):
    rows = np.arange(200)
    assert not np.array_equal(epoch_order(rows, seed, epoch), epoch_order(rows, 7, 1))


@pytest.mark.parametrize(("seed", "digest"), [(8, DIGEST), (7, "cd" * 32)])
def test_another_seed_or_alignment_is_another_split(seed: int, digest: str):
    assert not np.array_equal(split_rows(200, 0.2, 0.2, seed, digest).test, split_rows(200, 0.2, 0.2, 7, DIGEST).test)


def test_no_two_of_many_epochs_have_the_same_order():
    orders = {tuple(epoch_order(np.arange(20), seed, epoch)) for seed in range(30) for epoch in range(1, 31)}
    assert len(orders) == 900


def test_every_row_is_equally_likely_to_come_first():
    first = np.array([epoch_order(np.arange(8), 7, epoch)[0] for epoch in range(1, 2001)])
    counts = np.bincount(first, minlength=8)
    assert ((counts - 250) ** 2 / 250).sum() < 24.3  # chi-squared of 7 degrees of freedom at 0.1 %


def test_an_order_does_not_change_what_it_was_made_from():
    rows = np.arange(10)
    epoch_order(rows, 7, 1)
    assert rows.tolist() == list(range(10))
