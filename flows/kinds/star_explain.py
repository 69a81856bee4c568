"""What `isthmus explain` says of every job with a coordinator: what secure aggregation hides, and what it cannot."""

from __future__ import annotations

from ...horizontal.secagg import threshold
from ..stands import Kept, Protected, Stand, kept_by_parties, outside
from .star import StarJob

HOLDS = (
    "secure aggregation holds against a coordinator that deviates, with fewer than a third of the parties on its side"
)


def sums_protect(job: StarJob, what: str) -> list[Protected]:
    """What hides one party's numbers in a sum."""
    if not job.secure_aggregation:
        by = f"nothing: {job.coordinator} sees each party's own, where every policy says plain_updates: allow"
        return [Protected(what, by)]
    parties = len(job.names)
    by = f"secure aggregation: sums of at least {job.fewest} of {parties} parties; {threshold(parties)} help to unmask"
    return [Protected(what, by)]


def star_stands(job: StarJob, remembered: str) -> list[Stand]:
    """Against all; `remembered` is what else a curious member can work out."""
    more = f"; {remembered}" if remembered else ""
    curious = "with two or three parties: the others' sum less one's own" + more
    again = "ask again with a trifle altered and one party less: the difference is that party"
    if not job.secure_aggregation:
        return [
            *outside(patients=False),
            Stand("C", "rows stay at home", f"{job.coordinator} sees every party's own numbers; {curious}"),
            Stand("M", "every party's policy agrees, or nothing leaves it", f"poison its update; {again}"),
        ]
    return [
        *outside(patients=False),
        Stand("C", "sees sums over all parties, never one party's numbers", curious),
        Stand("M", HOLDS, f"poison its update, which nobody can see under masks; {again}"),
    ]


def star_keeps(job: StarJob, *more: Kept) -> list[Kept]:
    """What is kept after a run."""
    sums = Kept("each party", "digests of the sums that it helped to unmask, so that none is unmasked twice", "")
    own = (sums._replace(where="state.duckdb"),) if job.secure_aggregation else ()
    return kept_by_parties("each member", *more, *own)
