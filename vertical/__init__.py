"""Same patients, other columns: one model split between the parties.

`models` holds the parts, `split` is the protocol between the active party and the passive ones, `central` the same
network in one process, `batches` the orders that all parties derive for themselves, `training` what split and central
have in common.
"""

from __future__ import annotations

from .batches import Parts, split_rows
from .central import CentralModel, train_central
from .models import SplitPlan
from .split import ActivePart, PassivePart, score_active, score_passive, train_active, train_passive
from .training import EpochReport

__all__ = [
    "ActivePart",
    "CentralModel",
    "EpochReport",
    "Parts",
    "PassivePart",
    "SplitPlan",
    "score_active",
    "score_passive",
    "split_rows",
    "train_active",
    "train_central",
    "train_passive",
]
