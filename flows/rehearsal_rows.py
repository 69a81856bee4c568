"""Synthetic rows for a rehearsal: persons who were never anywhere, with what a party's schema says it knows of persons.

Every person has a few hidden facts. A column is a mixture of them and noise, the same mixture at every party that has a
column of that name; a label follows from them too, so that a model finds something to learn, and more of it with more
parties' columns. Identifiers belong to the person, so that parties which know the same person can find it. All of it is
drawn from the seed: nothing here has seen a row.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .schema_of import ColumnShape, FieldShape

FACTS = 4
MISSING = 0.05  # of the values of a feature
MISTYPED = 0.08  # of the values of a linkage field, at all parties but the first
SHARE = 0.35  # of persons with the outcome, about
DEFAULT_LEVELS = tuple(f"level {number}" for number in range(1, 5))
TargetKind = Literal["binary", "regression", "duration", "event", "part"]
Values = NDArray[Any]
_SQL = {"number": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "category": "VARCHAR", "date": "DATE"}
_FIRST_DAY = date(1930, 1, 1)


@dataclass(frozen=True)
class TableShape:
    """What one party's table holds: features, targets by what is learnt of them, and linkage fields.

    A duration lies about between 0 and its value in `until`.
    """

    columns: Mapping[str, ColumnShape]
    targets: Mapping[str, TargetKind] = field(default_factory=dict)
    identifiers: Mapping[str, FieldShape] = field(default_factory=dict)
    until: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """One column of a table: its values, None or NaN where they are missing, and the SQL type that they are to have."""

    values: Values
    sql_type: str


class People:
    """So many synthetic persons; everything about them follows from the seed.

    `alone` are the linkage fields that some pass uses by themselves, whose values have to tell persons apart; `dates`
    those that are dates at some party.
    """

    def __init__(self, count: int, seed: int, alone: frozenset[str] = frozenset(), dates: frozenset[str] = frozenset()):
        self._count, self._seed, self._alone, self._dates = count, seed, alone, dates
        self._facts = self._draw("facts").normal(size=(count, FACTS))

    def table(self, shape: TableShape, who: NDArray[np.int64], *, party: str, mistyped: bool) -> dict[str, Made]:
        """The columns of these persons, by name, in their order."""
        chance = self._draw(f"party {party}")
        made: dict[str, Made] = {}
        for name, column in shape.columns.items():
            missing = chance.random(len(who)) < MISSING
            made[name] = self._feature(name, column, who, missing)
        for name, kind in shape.targets.items():
            made[name] = self._target(name, kind, shape.columns.get(name), who, shape.until.get(name, 365.0))
        return made | self.identifiers(shape.identifiers, who, chance if mistyped else None)

    def identifiers(
        self, fields: Mapping[str, FieldShape], who: NDArray[np.int64], chance: np.random.Generator | None = None
    ) -> dict[str, Made]:
        """The columns of linkage fields, named as `identifier_columns` names them; with `chance` some are mistyped."""
        made = {}
        for name, shape in fields.items():
            for place, column in enumerate(identifier_columns(name, shape)):
                values = self._identifier(name, shape, place)[who]
                if chance is not None:
                    wrong = chance.random(len(who)) < MISTYPED
                    values[wrong] = [f"{value}x" for value in values[wrong]]
                made[column] = Made(values, "VARCHAR")
        return made

    # --- below: one column -------------------------------------------------------------------------------------------

    def _feature(self, name: str, shape: ColumnShape, who: NDArray[np.int64], missing: NDArray[np.bool_]) -> Made:
        draw = self._draw(f"column {name}")
        mixture = draw.normal(size=FACTS)
        score = (self._facts @ (mixture / np.linalg.norm(mixture)) + 0.5 * draw.normal(size=self._count))[who]
        sql_type = _SQL.get(shape.type, "TIME")  # of any other type a job refuses the column, as it would the real one
        match shape.type:
            case "number":
                scale = 10.0 ** draw.uniform(-1, 2)
                values = np.round(scale * (draw.uniform(3, 6) + score), 3)
                values[missing] = np.nan
            case "integer":
                values = np.maximum(0.0, np.round(6 + 2 * score))
                values[missing] = np.nan
            case "boolean":
                values = (score > 0).astype(np.float64)
            case "category":
                levels = shape.levels or DEFAULT_LEVELS
                ranks = np.minimum(len(levels) - 1, np.floor(len(levels) * _share_below(score))).astype(np.int64)
                values = np.array([levels[rank] for rank in ranks], dtype=object)
                values[missing] = None
            case "date":
                values = _days(20_000 * _share_below(score))
            case _:
                values = np.full(len(who), "00:00:00", dtype=object)
        return Made(values, sql_type)

    def _target(
        self, name: str, kind: TargetKind, shape: ColumnShape | None, who: NDArray[np.int64], until: float
    ) -> Made:
        draw = self._draw("outcome")  # the same at all parties, and for all outcomes: who is at risk is at risk
        weights = draw.normal(size=FACTS)
        risks = 1.5 * self._facts @ (weights / np.linalg.norm(weights)) + 0.5 * draw.normal(size=self._count)
        risk, high = risks[who], np.quantile(risks, 1 - SHARE)
        late = self._draw(f"time {name}").exponential(size=self._count)[who]
        values: Values
        match kind:
            case "binary" | "event":
                values = (risk > high).astype(np.float64)
            case "regression":
                values = np.round(100 + 10 * risk, 3)
            case "duration":
                values = until * np.clip(0.6 * late * np.exp(-0.5 * risk), 0.01, 1.5)
            case "part":
                places = self._draw("parts").random(self._count)[who]
                values = np.array(["train" if p < 0.6 else "validation" if p < 0.8 else "test" for p in places], object)
                return Made(values, "VARCHAR")
        sql_type = _SQL.get(shape.type, "TIME") if shape is not None else "DOUBLE"
        if sql_type == "BIGINT":
            values = np.ceil(values)
        elif sql_type == "VARCHAR":  # a job refuses it, as it would the real one
            values = np.array([f"{value:g}" for value in values], dtype=object)
        elif sql_type in ("DATE", "TIME"):
            values = _days(values) if sql_type == "DATE" else np.full(len(who), "00:00:00", dtype=object)
        return Made(values, sql_type)

    def _identifier(self, name: str, shape: FieldShape, place: int) -> Values:
        """The field's values of everybody, as a party with this format writes them."""
        draw = self._draw(f"identifier {name} {place}")
        if name in self._dates:
            days = [_FIRST_DAY + timedelta(days=int(day)) for day in draw.integers(0, 25_000, self._count)]
            return np.array([day.strftime(shape.format) if shape.format else day.isoformat() for day in days], object)
        if name in self._alone:
            numbers = draw.permutation(self._count)
        else:
            numbers = draw.integers(0, max(700, self._count // 2), self._count)
        return np.array([f"{name[:3]}{number:06d}" for number in numbers], dtype=object)

    def _draw(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(purpose.encode())])


def identifier_columns(name: str, shape: FieldShape) -> list[str]:
    """What the columns of a linkage field are called in a synthetic table: no schema has such names."""
    return [f"rehearsal identifier {name} {place}" for place in range(1, shape.columns + 1)]


def who_is_where(parties: Sequence[str], rows: int, overlap: float) -> dict[str, NDArray[np.int64]]:
    """The persons whom each party knows, by number: `rows` each, of which a share `overlap` are known to all."""
    shared = round(rows * overlap)
    own = rows - shared
    return {
        party: np.concatenate([np.arange(shared), shared + own * place + np.arange(own)])
        for place, party in enumerate(parties)
    }


def _share_below(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value the share of the values below it, in [0, 1)."""
    order: NDArray[np.float64] = np.argsort(np.argsort(scores)) / len(scores)
    return order


def _days(numbers: NDArray[np.float64]) -> Values:
    return np.array([(_FIRST_DAY + timedelta(days=int(number))).isoformat() for number in numbers], dtype=object)
