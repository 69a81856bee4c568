"""What `isthmus check` says of jobs about shared patients: a look at own data, the bytes of alignment and of split
training, at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, TypeVar

from numpy.typing import NDArray

from ...parties.errors import IsthmusError
from ...parties.home import PartyHome
from ...parties.policy import Grant
from ...parties.store import Store
from ..check import ENVELOPE_NBYTES, Look
from .aligned import AlignedJob, SplitTraining

J = TypeVar("J", bound=AlignedJob)

FLOAT_NBYTES, SETUP_NBYTES = 4, 2048
POINT_NBYTES, CUT_POINT_NBYTES, INDEX_NBYTES, SEED_NBYTES, LEAF_NBYTES = 33, 16, 4, 32, 66
CHUNK_ROWS = 4096  # in a message, of points and of rows to score; not imported, since that would load torch


def look_at_rows(
    home: PartyHome,
    job: J,
    grant: Grant,
    look_at: Callable[[Store, J, str, Sequence[str], NDArray[Any]], object],
) -> Look:
    """Read what the job would use of one party, as the vault of its kind does: `look_at` with the columns granted."""
    rows: int | None = None
    try:
        store = Store(home, job.party(home.name).dataset)
        row_ids = store.row_ids()
        rows = len(row_ids)
        look_at(store, job, home.name, grant.columns, row_ids)
    except IsthmusError as error:
        return Look(rows, error)
    return Look(rows)


def aligning_nbytes(job: AlignedJob, mine: int | None, theirs: int | None) -> tuple[int | None, int | None]:
    """Bytes of `psi.star` from the leader with `mine` rows to a party with `theirs`, and back."""
    if mine is None or theirs is None:
        return None, None
    passes, shared = len(job.align.passes), min(mine, theirs)
    up = POINT_NBYTES * mine + theirs // 8 + 1 + INDEX_NBYTES * shared
    down = POINT_NBYTES * theirs + CUT_POINT_NBYTES * mine + SEED_NBYTES
    common = INDEX_NBYTES * shared + LEAF_NBYTES * len(job.followers)
    messages = 6 + mine // CHUNK_ROWS + theirs // CHUNK_ROWS  # a pass
    return (
        passes * (up + messages * ENVELOPE_NBYTES) + common + 6 * ENVELOPE_NBYTES,
        passes * (down + messages * ENVELOPE_NBYTES) + 6 * ENVELOPE_NBYTES,
    )


def learning_nbytes(
    training: SplitTraining, mine: int | None, theirs: int | None, width: int
) -> tuple[int | None, int | None, int | None]:
    """Bytes of `vertical.split`: cut layers and gradients in training, cut layers of the held-out patients."""
    if mine is None or theirs is None:
        return None, None, None
    shared, row_nbytes = min(mine, theirs), width * FLOAT_NBYTES
    train = ceil(shared * (1 - training.validation_share - training.test_share)) + 1  # parts are rounded
    batches = 1 + train // training.batch_size
    backward = training.epochs * (train * row_nbytes + (batches + 1) * ENVELOPE_NBYTES)
    validating = scoring_nbytes(ceil(shared * training.validation_share), width)
    return (
        backward + training.epochs * validating,
        backward,
        scoring_nbytes(ceil(shared * training.test_share), width),
    )


def scoring_nbytes(rows: int, width: int) -> int:
    """Bytes of the cut layer, or of an embedding, of so many rows."""
    return rows * width * FLOAT_NBYTES + (1 + rows // CHUNK_ROWS) * ENVELOPE_NBYTES
