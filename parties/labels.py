"""What a label may hold: checked before anything is learnt from it.

Values come as the store reads them: numbers float64 ``(rows,)`` with NaN where they are missing, text with None.
`about` are the facts that errors name: party, dataset and column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

PARTS = ("train", "validation", "test")
Numbers = NDArray[np.float64]


def binary(
    values: Numbers, about: Mapping[str, str], *, may_be_constant: bool = False, may_be_missing: bool = False
) -> NDArray[np.float32]:
    """0 and 1, float32, and NaN where it may be missing.

    Raises `InputError` ``data.label_missing``, ``_not_binary`` and ``_constant``.
    """
    if not may_be_missing:
        _all_known(values, about)
    outcomes = set(np.unique(values[~np.isnan(values)]).tolist())
    if not outcomes <= {0.0, 1.0}:
        raise InputError("data.label_not_binary", **about)
    if len(outcomes) < 2 and not may_be_constant:
        raise InputError("data.label_constant", **about)
    return values.astype(np.float32)


def number(values: Numbers, about: Mapping[str, str]) -> NDArray[np.float32]:
    """Numbers that vary, float32. Raises `InputError` ``data.label_missing`` and ``data.label_constant``."""
    _all_known(values, about)
    found = _narrow(values, about)
    if len(np.unique(found)) < 2:
        raise InputError("data.label_constant", **about)
    return found


def duration(values: Numbers, about: Mapping[str, str]) -> NDArray[np.float32]:
    """Numbers above zero, float32. Raises `InputError` ``data.duration``."""
    found = _narrow(values, about)
    if wrong := int((~(found > 0)).sum()):  # nor is NaN above it
        raise InputError("data.duration", count=wrong, **about)
    return found


def part(values: NDArray[Any], about: Mapping[str, str]) -> NDArray[Any]:
    """Text of `PARTS`. Raises `InputError` ``data.part``."""
    if not np.isin(values, PARTS).all():
        raise InputError("data.part", **about)
    return values


def _all_known(values: Numbers, about: Mapping[str, str]) -> None:
    if missing := int(np.isnan(values).sum()):
        raise InputError("data.label_missing", count=missing, **about)


def _narrow(values: Numbers, about: Mapping[str, str]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if np.isinf(found).any():  # what is read holds no infinity, but float32 ends at 3e38
        raise InputError("data.label_not_number", **about)
    return found
