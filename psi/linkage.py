"""Identifiers → linkage keys, pass by pass.

A pass is a list of identifiers, such as birth date and postcode. Two rows are the same patient in a pass when all of
them agree after normalisation; passes run from strong to weak, each over the rows that are still unmatched. The key
of a row is the SHA-256 of the pass and its normalised values, each with its length in front, so that neither two
values that run together nor two passes can make the same key. Keys never leave the party as they are: `cipher`
enciphers them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray

from ..parties.table import Identifier

Passes = Sequence[Sequence[str]]

_CONTEXT = "isthmus linkage 1"
# str.translate with an ASCII table is the fastest way to drop characters.
_DROP = {code: None for code in range(128) if not ("a" <= chr(code) <= "z" or "0" <= chr(code) <= "9")}


@dataclass(frozen=True)
class PassKeys:
    """The keys of one pass at one party.

    `rows` (used,) are the positions of the rows that have a key of their own; `keys` their keys, in the same order.
    `null` rows lack a value, `repeated` rows share their key with another row of this party: neither takes part in
    the pass.
    """

    rows: NDArray[np.int64]
    keys: list[str]
    null: int
    repeated: int


class Linkage:
    """The linkage keys of one party's rows. Each identifier is normalised once, whatever the number of passes."""

    def __init__(self, identifiers: Mapping[str, Identifier], passes: Passes) -> None:
        self._passes = [tuple(names) for names in passes]
        used = dict.fromkeys(name for names in self._passes for name in names)
        self._values = {name: normalised(identifiers[name]) for name in used}

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self._values.values()), ()))

    def has_keys(self) -> bool:
        """Whether any row has a complete key in any pass."""
        columns = ([self._values[name] for name in names] for names in self._passes)
        return any(None not in values for pass_columns in columns for values in zip(*pass_columns, strict=True))

    def keys(self, number: int, rows: NDArray[np.int64]) -> PassKeys:
        """Keys of pass `number` (from 1) for the rows at these positions, those still unmatched."""
        names = self._passes[number - 1]
        prefix = _prefixed(_CONTEXT, str(number), *names)
        columns = [self._values[name] for name in names]
        sha256 = hashlib.sha256
        complete: list[int] = []
        keys: list[str] = []
        for row in rows.tolist():
            values = [column[row] for column in columns]
            if None not in values:
                complete.append(row)
                keys.append(sha256((prefix + "".join(values)).encode()).hexdigest())
        shared = {key for key, count in Counter(keys).items() if count > 1}
        alone = [place for place, key in enumerate(keys) if key not in shared] if shared else range(len(keys))
        return PassKeys(
            rows=np.array([complete[place] for place in alone], dtype=np.int64),
            keys=[keys[place] for place in alone],
            null=len(rows) - len(keys),
            repeated=len(keys) - len(alone),
        )


def normalised(identifier: Identifier) -> list[str | None]:
    """One text a row, the same however the value was written; None where a part of it is null or empty.

    The values of several columns are sorted after normalisation: given name and surname may be swapped.
    """
    normal = _date_reader(identifier.date_format) if identifier.date_format else normal_text
    columns: list[list[str | None]] = [column.tolist() for column in identifier.columns]
    if len(columns) == 1:
        return _mapped(columns[0], lambda text: _whole([normal(text)]))
    parts = [_mapped(column, normal) for column in columns]
    return [_whole(row) for row in zip(*parts, strict=True)]


def normal_text(text: str) -> str | None:
    """NFKD, folded to ASCII, lower case, letters and digits alone; None if nothing is left."""
    if not text.isascii():  # both steps leave ASCII as it is
        text = anyascii(unicodedata.normalize("NFKD", text))
    text = text.lower()
    return text if text.isalnum() else text.translate(_DROP) or None


def unreadable_dates(identifiers: Mapping[str, Identifier]) -> list[str]:
    """Names of the identifiers whose date format fits none of their values: a mistake in party.yaml.

    The caller, who knows the dataset's name, raises ``data.identifier_format``.
    """
    names = []
    for name, identifier in identifiers.items():
        if identifier.date_format:
            read = _date_reader(identifier.date_format)
            texts = {text for column in identifier.columns for text in column.tolist() if text}
            if texts and all(read(text) is None for text in texts):
                names.append(name)
    return names


def _date_reader(date_format: str) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        try:
            return datetime.strptime(text.strip(), date_format).date().isoformat()
        except ValueError:
            return None

    return read


def _mapped(values: Sequence[str | None], normal: Callable[[str], str | None]) -> list[str | None]:
    """Normalise each distinct value once: names, dates and postcodes recur."""
    table = {value: normal(value) for value in set(values) if value is not None}
    return [None if value is None else table[value] for value in values]


def _whole(parts: Sequence[str | None]) -> str | None:
    """The normalised parts of one identifier as one text, whatever their order."""
    whole = [part for part in parts if part is not None]
    return _prefixed(_prefixed(*sorted(whole))) if len(whole) == len(parts) else None


def _prefixed(*parts: str) -> str:
    return "".join(f"{len(part)}:{part}" for part in parts)
