"""What `isthmus explain` says of a vertical job beside who learns what."""

from __future__ import annotations

from ...stands import Kept, Protected, Stand
from ..aligned_explain import aligned_keeps, aligned_stands, linkage_protects
from .job import VerticalJob


def protects(job: VerticalJob) -> list[Protected]:
    """What is hidden, and by which mechanism."""
    split = "split training alone; no noise on cut layers and gradients"
    return [*linkage_protects(job), Protected("columns", split)]


def stands(job: VerticalJob) -> list[Stand]:
    """How the job stands against each adversary."""
    curious = Stand(
        "C",
        "learns nothing of patients not shared, no column as it stands",
        "labels out of gradients, much of the columns out of the cut layer; neither measured nor defended yet",
    )
    return aligned_stands(curious, "choose weights or batches that tell more")


def keeps(job: VerticalJob) -> list[Kept]:
    """What stays behind after a run."""
    return aligned_keeps("its part of the model")
