"""A transfer job → what the algorithms take."""

from __future__ import annotations

from ....transfer.trunk import PretrainPlan
from ....vertical import Parts, SplitPlan, split_rows
from ..aligned_phases import Aligned
from .job import TransferJob


def pretraining_of(job: TransferJob) -> PretrainPlan:
    """What the source learns."""
    return PretrainPlan(seed=job.seed, **job.pretraining.model_dump())


def tuning_of(job: TransferJob) -> SplitPlan:
    """The split training that goes on from it."""
    settings = job.split.model_dump(exclude={"at_least"})
    return SplitPlan(bottom=job.pretraining.hidden, seed=job.seed, **settings)


def parts_of(job: TransferJob, aligned: Aligned) -> Parts:
    """Which of the shared patients split tuning trains on, stops by, and holds out."""
    shares = (job.split.validation_share, job.split.test_share)
    return split_rows(len(aligned.row_ids), *shares, job.seed, aligned.digest)
