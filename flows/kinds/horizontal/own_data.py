"""What a party brings to a horizontal job beside its columns: for its vault, and for `isthmus check`."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ....horizontal.splits import Parts, check_rows, split_by_column, split_by_hash
from ....horizontal.targets import Target
from ....parties.store import Store
from .job import HorizontalJob


def read_target(store: Store, job: HorizontalJob, row_ids: NDArray[Any]) -> Target:
    """What the model learns to tell; raises the errors of `Store`."""
    label = job.label
    if label.duration is not None and label.event is not None:
        return Target("survival", *store.durations(label.duration, label.event, row_ids))
    if label.task == "regression":
        return Target("regression", store.target_number(str(label.column), row_ids))
    # A hospital where nobody had the outcome, or everybody, takes part all the same.
    return Target("binary", store.label(str(label.column), row_ids, may_be_constant=True))


def read_parts(store: Store, job: HorizontalJob, party: str, row_ids: NDArray[Any], target: Target) -> Parts:
    """Which rows train, choose the best round and are held out.

    Raises `InputError` ``data.part`` and ``data.few_rows``.
    """
    split = job.split
    if split.column is not None:
        parts = split_by_column(store.part(split.column, row_ids))
    else:
        parts = split_by_hash(row_ids, target.stratum(), split.validation_share, split.test_share, job.rounds.seed)
    check_rows(parts, party)
    return parts
