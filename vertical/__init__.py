"""Same patients, other columns: one model split between the parties.

`models` holds what a job can name, `parts` what a party keeps; `split` is the protocol between the active party and
the passive ones and `setup` its beginning, `central` the same network in one process; `batches` are orders that all
parties derive for themselves, `training` is what split and central have in common.
"""

from __future__ import annotations

from .batches import Parts, split_rows
from .central import CentralModel, train_central
from .models import SplitPlan
from .parts import ActivePart, PassivePart
from .split import score_active, score_passive, train_active, train_passive
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
