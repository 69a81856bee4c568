"""The layer that knows Prefect, terminals and plots.

A data engineer imports from here::

    from isthmus.flows import VerticalJob, align, publish_report, train_vertical, vertical

`align` finds the shared patients and returns a handle, `train_vertical` trains on them, `train_transfer` gives a target
what a source has learnt about them, `train_horizontal` trains by rounds, `measure` adds up statistics, `publish_report`
shows the result. `vertical`, `horizontal`, `statistics`, `transfer` and `finetune` are whole jobs, as the flows that
`isthmus run` and the deployments start. Names are loaded when they are used, since `isthmus --help` and the vaults must
not import Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .coordinate import (
        Model,
        Shared,
        align,
        finetune,
        horizontal,
        measure,
        publish_report,
        statistics,
        train_horizontal,
        train_transfer,
        train_vertical,
        transfer,
        vertical,
    )
    from .kinds.finetune.job import FinetuneJob
    from .kinds.horizontal.job import HorizontalJob
    from .kinds.statistics.job import StatisticsJob
    from .kinds.transfer.job import TransferJob
    from .kinds.vertical.job import VerticalJob

_HOMES = {
    "FinetuneJob": "kinds.finetune.job",
    "HorizontalJob": "kinds.horizontal.job",
    "Model": "coordinate",
    "Shared": "coordinate",
    "StatisticsJob": "kinds.statistics.job",
    "TransferJob": "kinds.transfer.job",
    "VerticalJob": "kinds.vertical.job",
    "align": "coordinate",
    "finetune": "coordinate",
    "horizontal": "coordinate",
    "measure": "coordinate",
    "publish_report": "coordinate",
    "statistics": "coordinate",
    "train_horizontal": "coordinate",
    "train_transfer": "coordinate",
    "train_vertical": "coordinate",
    "transfer": "coordinate",
    "vertical": "coordinate",
}
__all__ = [
    "FinetuneJob",
    "HorizontalJob",
    "Model",
    "Shared",
    "StatisticsJob",
    "TransferJob",
    "VerticalJob",
    "align",
    "finetune",
    "horizontal",
    "measure",
    "publish_report",
    "statistics",
    "train_horizontal",
    "train_transfer",
    "train_vertical",
    "transfer",
    "vertical",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
