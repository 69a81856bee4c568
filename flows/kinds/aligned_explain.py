"""What `isthmus explain` says of every job about shared patients: what linkage hides, what it cannot, what is kept."""

from __future__ import annotations

from ..stands import Kept, Protected, Stand, kept_by_parties, outside
from .aligned import AlignedJob

GUARDED = "guards refuse malformed points and sizes, floors come before any position"
MADE_UP = "make up identifiers and test whether they are known; pad a set to lift a floor"


def linkage_protects(job: AlignedJob) -> list[Protected]:
    """What the linkage of a job hides."""
    least = f"no job below {job.align.at_least:,} shared patients, or the policies' highest floor"
    return [
        Protected("identifiers", "private set intersection: enciphered keys leave, no identifier"),
        Protected("floors", least),
    ]


def aligned_stands(curious: Stand, deviating: str) -> list[Stand]:
    """Against all; `deviating` is what else a member can do that deviates."""
    more = f"; {deviating}" if deviating else ""
    return [*outside(patients=True), curious, Stand("M", GUARDED, MADE_UP + more)]


def aligned_keeps(model: str) -> list[Kept]:
    """What is kept after a run."""
    return kept_by_parties(
        "each party",
        Kept("each party", model, "models/RUN/"),
        Kept("each party", "which of its own rows are shared, in order", "state.duckdb"),
    )
