"""What `isthmus explain` says of a statistics job beside who learns what."""

from __future__ import annotations

from ...stands import Kept, Protected, Stand
from ..star_explain import star_keeps, star_stands, sums_protect
from .job import StatisticsJob


def protects(job: StatisticsJob) -> list[Protected]:
    """What is hidden, and by which mechanism."""
    floor = f"no count below {job.at_least:,}, or the highest cohort of the policies, and none that gives one away"
    return [*sums_protect(job, "counts"), Protected("floors", floor)]


def stands(job: StatisticsJob) -> list[Stand]:
    """How the job stands against each adversary."""
    return star_stands(job, "")


def keeps(job: StatisticsJob) -> list[Kept]:
    """What stays behind after a run."""
    return star_keeps(job)
