"""Same columns, other patients: and what every kind of training needs.

`tabular` turns columns into tensors and holds the tabular network, `metrics` says how well a model does.

A training in rounds is `rounds` (the coordinator) and `participant` (a party), by a `plan` of small pieces:
`objective`, `transform`, `aggregate`, `optimizer`, `scope`. Sums over parties are `summing`, masked ones `secagg`;
`statistics` counts by them, `disclosure` says what may be told. Modules that need torch are imported when they are
used: a job is read, and rows are counted, without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tabular import Encoded, PrivateDropout, TabularEncoder, TabularInput, linear, multilayer, private_generator

__all__ = [
    "Encoded",
    "PrivateDropout",
    "TabularEncoder",
    "TabularInput",
    "linear",
    "multilayer",
    "private_generator",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".tabular", __name__), name)
