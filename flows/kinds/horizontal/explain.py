"""What `isthmus explain` says of a horizontal job beside who learns what."""

from __future__ import annotations

from ...stands import Kept, Protected, Stand
from ..star_explain import star_keeps, star_stands, sums_protect
from .job import HorizontalJob


def protects(job: HorizontalJob) -> list[Protected]:
    """What is hidden, and by which mechanism."""
    return [
        *sums_protect(job, "updates"),
        Protected("floors", "no number about fewer patients than the highest cohort of all policies"),
        Protected("the model", "nothing: every party holds it, and the coordinator sees it in every round"),
    ]


def stands(job: HorizontalJob) -> list[Stand]:
    """How the job stands against each adversary."""
    return star_stands(job, "what the model remembers")


def keeps(job: HorizontalJob) -> list[Kept]:
    """What stays behind after a run."""
    return star_keeps(job, Kept("each party", "the common model, with means, scales and levels", "models/RUN/"))
