"""What `isthmus check` says of every job about shared patients: the bytes of alignment, at most."""

from __future__ import annotations

from ..check import ENVELOPE_NBYTES
from .aligned import AlignedJob

POINT_NBYTES, CUT_POINT_NBYTES, INDEX_NBYTES, SEED_NBYTES, LEAF_NBYTES = 33, 16, 4, 32, 66
CHUNK_ROWS = 4096  # in a message, of points and of rows to score; not imported, since that would load torch


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
