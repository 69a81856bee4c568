from __future__ import annotations

import numpy as np

from isthmus.horizontal.order import batches, shuffled


def test_an_order_depends_on_its_label_alone() -> None:
    rows = np.arange(1000)
    assert shuffled(rows, "a").tolist() == shuffled(rows, "a").tolist()
    assert shuffled(rows, "a").tolist() != shuffled(rows, "b").tolist()
    assert sorted(shuffled(rows, "a").tolist()) == rows.tolist()


def test_the_last_batch_may_be_smaller() -> None:
    assert [batch.tolist() for batch in batches(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
