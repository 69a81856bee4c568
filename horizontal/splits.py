"""A party's rows → training, validation and test rows, the same whenever a job is run again.

The order is one of hashes of the row ids, seeded by the job, so it depends neither on how the party's SQL happens to
order rows nor on any library's generator. The hash is no secret: a split hides nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError

LEAST_TRAIN_ROWS = 2  # one row has no spread to standardise by


@dataclass(frozen=True)
class SplitRule:
    """How a party's rows are held out: as a `column` says, or without one by shares, in the order of seeded hashes.

    Beside a model it says which rows that has not seen, as far as they are the same rows with the same outcomes: a
    stratum that has grown or shrunk since moves its few rows at the edge into another part.
    """

    validation_share: float
    test_share: float
    seed: int
    column: str | None = None


@dataclass(frozen=True)
class Parts:
    """Positions among the party's rows, each part ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_by_hash(
    row_ids: NDArray[Any],
    stratum: NDArray[np.int64],
    validation_share: float,
    test_share: float,
    seed: int,
) -> Parts:
    """Split rows by the hash of their ids, each stratum (an outcome, say) in the same proportions.

    Shares are rounded to whole rows in each stratum. `row_ids` and `stratum` are ``(rows,)``.
    """
    digests = [hashlib.sha256(f"isthmus split {seed} {row}".encode()).digest() for row in row_ids.tolist()]
    train, validation, test = [], [], []
    for one in np.unique(stratum).tolist():
        order = np.array(sorted(np.flatnonzero(stratum == one), key=lambda place: digests[place]), dtype=np.int64)
        tested = round(len(order) * test_share)
        validated = round(len(order) * validation_share)
        test.append(order[:tested])
        validation.append(order[tested : tested + validated])
        train.append(order[tested + validated :])
    return Parts(*(np.sort(np.concatenate([*part, np.zeros(0, np.int64)])) for part in (train, validation, test)))


def split_by_column(part: NDArray[Any]) -> Parts:
    """Split rows as a column of the party's own says: `part` is text ``(rows,)``, as `Store.part` gives it."""
    return Parts(*(np.flatnonzero(part == name) for name in ("train", "validation", "test")))


def check_rows(parts: Parts, party: str, least: int = LEAST_TRAIN_ROWS) -> None:
    """Raise `InputError` ``data.few_rows`` unless there are `least` training rows."""
    if len(parts.train) < least:
        raise InputError("data.few_rows", party=party, count=len(parts.train), allowed=least)
