"""What `isthmus explain` says of a transfer job beside who learns what."""

from __future__ import annotations

from ...stands import Kept, Protected, Stand
from ..aligned_explain import aligned_keeps, aligned_stands, linkage_protects
from .job import TransferJob


def protects(job: TransferJob) -> list[Protected]:
    """What is hidden, and by which mechanism."""
    source, target = job.source.name, job.target.name
    numbers = "one number" if job.width == 1 else f"{job.width} numbers"
    given = f"{numbers} of each shared patient, once; at most max_embedding of its policy"
    if job.pretraining.how == "supervised":
        given += "; out of fold: made without that patient's own label"
    folds = f"each of {job.pretraining.folds} folds has at least {source}'s cohort of shared patients"
    labels = f"nothing of them is sent but whether {target} knows too few outcomes"
    if job.target.label is None:
        labels = "nothing of them is sent"
    if job.split.at_least is not None:
        labels = f"nothing hides labels from {source} once {job.split.at_least:,} are shared: gradients are sent"
    return [
        *linkage_protects(job),
        Protected(f"{source}'s columns", given),
        Protected("", folds),
        Protected(f"{target}'s columns", labels),
    ]


def stands(job: TransferJob) -> list[Stand]:
    """How the job stands against each adversary."""
    curious = Stand(
        "C",
        "learns nothing of patients not shared, no column as it stands",
        "the source's labels for patients that look alike; more from several jobs",
    )
    return aligned_stands(curious, "a source learns whether a made-up set has outcomes")


def keeps(job: TransferJob) -> list[Kept]:
    """What stays behind after a run."""
    return aligned_keeps("its own model")
