"""The layer that knows Prefect, terminals and plots.

A data engineer imports from here::

    from isthmus.flows import VerticalJob, align, publish_report, train_vertical, vertical

`align` finds the shared patients and returns a handle, `train_vertical` trains on them, `publish_report` shows the
result; `vertical` is all three, as the flow that `isthmus run` and the deployment start. Names are loaded when they are
used, since `isthmus --help` and the vaults must not import Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .coordinate import Model, Shared, align, publish_report, train_vertical, vertical
    from .kinds.vertical.job import VerticalJob

_HOMES = {
    "Model": "coordinate",
    "Shared": "coordinate",
    "VerticalJob": "kinds.vertical.job",
    "align": "coordinate",
    "publish_report": "coordinate",
    "train_vertical": "coordinate",
    "vertical": "coordinate",
}
__all__ = ["Model", "Shared", "VerticalJob", "align", "publish_report", "train_vertical", "vertical"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
