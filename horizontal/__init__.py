"""Same columns, other patients: and what every kind of training needs.

`tabular` turns columns into tensors and holds the tabular network, `metrics` says how well a model does. The federated
rounds of horizontal jobs will stand beside them.
"""

from __future__ import annotations

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
