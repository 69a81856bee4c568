"""What a party brings to a vertical job, looked at before anybody waits: by its vault, and by `isthmus check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ....parties.errors import InputError
from ....parties.store import Store
from ....parties.table import Identifier
from ..aligned_phases import read_identifiers
from .job import VerticalJob


def look_at(
    store: Store, job: VerticalJob, party: str, columns: Sequence[str], row_ids: NDArray[Any]
) -> dict[str, Identifier]:
    """Read everything that the job will use once; returns the identifiers of all rows.

    Raises `InputError` for whatever is wrong with it: ``data.no_columns``, and those of `read_identifiers` and
    `Store`.
    """
    mine = job.party(party)
    if mine.label is not None:
        store.label(mine.label, row_ids)
    elif not columns:
        raise InputError("data.no_columns", party=party, dataset=mine.dataset)
    store.columns(columns, row_ids)
    return read_identifiers(store, job, party, row_ids)
