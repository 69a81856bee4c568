"""What a party brings to a transfer job, looked at before anybody waits: by its vault, and by `isthmus check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....parties.errors import InputError
from ....parties.store import Store
from ....parties.table import Identifier
from ..aligned_phases import read_identifiers
from .job import TransferJob


def look_at(
    store: Store, job: TransferJob, party: str, columns: Sequence[str], row_ids: NDArray[Any]
) -> dict[str, Identifier]:
    """Read everything that the job will use once; returns the identifiers of all rows.

    Raises `InputError` for whatever is wrong with it: ``data.no_columns``, ``transfer.unlabelled``, and those of
    `read_identifiers` and `Store`.
    """
    if not columns:
        raise InputError("data.no_columns", party=party, dataset=store.name)
    store.columns(columns, row_ids)
    read_label(store, job, party, row_ids)
    return read_identifiers(store, job, party, row_ids)


def read_label(store: Store, job: TransferJob, party: str, row_ids: NDArray[Any]) -> NDArray[np.float32] | None:
    """The outcome of the given rows, 0 and 1, ``(rows,)``; None where the party brings no label.

    At the target NaN stands for an outcome that is not known. Raises ``transfer.unlabelled`` where none is.
    """
    label = job.party(party).label
    if label is None:
        return None
    if party == job.source.name:
        return store.label(label, row_ids)
    found = store.label(label, row_ids, may_be_constant=True, may_be_missing=True)
    if np.isnan(found).all():
        raise InputError("transfer.unlabelled", party=party, column=label)
    return found
