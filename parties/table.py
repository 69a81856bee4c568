"""What a store hands to the algorithms: columns of one dataset, row by row in the order that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

ColumnKind = Literal["number", "category"]


@dataclass(frozen=True)
class Column:
    """One feature.

    A number is float64 ``(rows,)`` with NaN where it is missing; a category is an object array ``(rows,)`` of text with
    None where it is missing.
    """

    name: str
    kind: ColumnKind
    values: NDArray[Any]


@dataclass(frozen=True)
class Identifier:
    """One linkage field as the party's engineer declared it: the text of one or more columns, and how dates are
    written.

    Each of `columns` is an object array ``(rows,)`` of text with None where it is missing. Several columns (given name
    and surname) stand for one field whose order does not matter. `date_format` is a strptime format, or None for text.
    """

    columns: Sequence[NDArray[Any]]
    date_format: str | None = None
