"""What a party brings to a horizontal job beside its columns: for its vault, and for `isthmus check`."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ....horizontal.splits import Parts, SplitRule, check_rows, split_by_column, split_by_hash
from ....horizontal.targets import Target
from ....parties.store import Store
from .job import HorizontalJob, LabelForm


def read_target(store: Store, label: LabelForm, row_ids: NDArray[Any], *, may_be_constant: bool) -> Target:
    """What the model learns to tell; raises the errors of `Store`. A survival time may do without an event."""
    if label.duration is not None and label.event is not None:
        return Target("survival", *store.durations(label.duration, label.event, row_ids))
    if label.task == "regression":
        return Target("regression", store.target_number(str(label.column), row_ids))
    return Target("binary", store.label(str(label.column), row_ids, may_be_constant=may_be_constant))


def split_of(job: HorizontalJob) -> SplitRule:
    """How each party holds rows out."""
    return SplitRule(job.split.validation_share, job.split.test_share, job.rounds.seed, job.split.column)


def read_parts(store: Store, rule: SplitRule, party: str, row_ids: NDArray[Any], target: Target) -> Parts:
    """Which rows train, choose the best round and are held out.

    Raises `InputError` ``data.part`` and ``data.few_rows``.
    """
    if rule.column is not None:
        parts = split_by_column(store.part(rule.column, row_ids))
    else:
        parts = split_by_hash(row_ids, target.stratum(), rule.validation_share, rule.test_share, rule.seed)
    check_rows(parts, party)
    return parts
