"""What a job asks of its parties' columns: summaries, grouped counts and survival curves.

A request is public: it comes from the job, and everyone holds the same one. What may not be asked together is refused
here, when the job is read: where two answers could be subtracted from one another in a way that `disclosure` does not
look at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

from .schema import ColumnSpec

OTHER, MISSING = "(other)", "(missing)"  # how groups beside the job's levels are called
MAX_GROUPINGS = 3
MAX_CELLS = 100_000  # of one table, with its margins
MAX_TIMES = 20_000  # of one curve, over all its strata
DEFAULT_BINS = 512


@dataclass(frozen=True)
class Grouping:
    """A column to group by: a category by its levels, a number by the bands that the `edges` cut.

    k edges make k + 1 bands: below the first, from each up to the next (without it), and from the last on.
    """

    column: str
    edges: tuple[float, ...] = ()


@dataclass(frozen=True)
class CountTable:
    """Counts of patients by one to three columns, with all margins."""

    name: str
    by: tuple[Grouping, ...]


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier curves of all patients and by the levels of each category column in `by`.

    `duration` and `event` name the columns that the parties read. Times are counted in whole `unit`\\ s (of the
    duration): an event at t stands at the first multiple of `unit` at or after t. Who is still under observation at
    `until` is censored there.
    """

    name: str
    duration: str
    event: str
    until: float
    unit: float = 1.0
    by: tuple[str, ...] = ()

    @property
    def times(self) -> int:
        """How many times the grid has: unit, 2 unit, … up to `until`."""
        return max(1, round(self.until / self.unit))


@dataclass(frozen=True)
class StatisticsRequest:
    """All that one job asks. `floor` is the job's own smallest cohort: fewer patients are never told of.

    Raises `ValueError`, in words for the job's author, for what cannot be asked, or not together.
    """

    columns: tuple[ColumnSpec, ...]
    tables: tuple[CountTable, ...] = ()
    curves: tuple[Curve, ...] = ()
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    bins: int = DEFAULT_BINS
    floor: int = 5

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise ValueError(problem)

    @cached_property
    def numbers(self) -> tuple[ColumnSpec, ...]:
        """The number columns, in order."""
        return tuple(spec for spec in self.columns if spec.kind == "number")

    @cached_property
    def categories(self) -> tuple[ColumnSpec, ...]:
        """The category columns, in order."""
        return tuple(spec for spec in self.columns if spec.kind == "category")

    @cached_property
    def edges(self) -> dict[str, tuple[float, ...]]:
        """The edges of each number column that a table groups by."""
        return {by.column: by.edges for table in self.tables for by in table.by if by.edges}

    def spec(self, name: str) -> ColumnSpec:
        """The column of a name."""
        return next(spec for spec in self.columns if spec.name == name)

    def groups(self, name: str) -> int:
        """How many groups a column has in tables, without those for other and missing values."""
        spec = self.spec(name)
        return len(spec.levels) if spec.kind == "category" else len(self.edges[name]) + 1

    def digest(self) -> str:
        """SHA-256 of all of it, as hex."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"isthmus statistics {text}".encode()).hexdigest()


def _problem(request: StatisticsRequest) -> str | None:
    """Why a request cannot be answered, in one sentence; None if it can."""
    names = [spec.name for spec in request.columns]
    if (twice := _repeated(names)) is not None:
        return f"column '{twice}' is named twice"
    for spec in request.columns:
        if spec.kind == "number" and spec.levels:
            return f"column '{spec.name}' is a number and has no levels"
        if spec.kind == "category" and not spec.levels:
            return f"category '{spec.name}' needs its levels"
        if _repeated(spec.levels) is not None or {OTHER, MISSING} & set(spec.levels):
            return f"the levels of '{spec.name}' have to differ, and to be neither '{OTHER}' nor '{MISSING}'"
    if any(not 0 < probability < 1 for probability in request.quantiles):
        return "a quantile is a probability between 0 and 1"
    if request.bins < 0 or request.floor < 1:
        return "`bins` and `floor` cannot be that low"
    titles = [table.name for table in request.tables] + [curve.name for curve in request.curves]
    if (twice := _repeated(titles)) is not None:
        return f"two tables or curves are called '{twice}'"
    edges: dict[str, tuple[float, ...]] = {}
    for table in request.tables:
        if (problem := _table_problem(request, table, edges)) is not None:
            return problem
    return _curves_problem(request)


def _table_problem(request: StatisticsRequest, table: CountTable, edges: dict[str, tuple[float, ...]]) -> str | None:
    if not 1 <= len(table.by) <= MAX_GROUPINGS:
        return f"table '{table.name}' groups by one to {MAX_GROUPINGS} columns"
    if _repeated([by.column for by in table.by]) is not None:
        return f"table '{table.name}' groups by the same column twice"
    cells = 1
    for by in table.by:
        spec = next((spec for spec in request.columns if spec.name == by.column), None)
        if spec is None:
            return f"table '{table.name}' groups by '{by.column}', which is not among the columns"
        if (spec.kind == "number") != bool(by.edges):
            return f"table '{table.name}': a number needs edges and a category has none, see '{by.column}'"
        if any(low >= high for low, high in pairwise(by.edges)):
            return f"table '{table.name}': the edges of '{by.column}' have to rise"
        if edges.setdefault(by.column, by.edges) != by.edges:
            return f"tables have to cut '{by.column}' at the same edges"
        cells *= (len(spec.levels) if spec.kind == "category" else len(by.edges) + 1) + 2
    return f"table '{table.name}' has more than {MAX_CELLS} cells" if cells > MAX_CELLS else None


def _curves_problem(request: StatisticsRequest) -> str | None:
    read = [name for curve in request.curves for name in {curve.duration, curve.event}]
    if (twice := _repeated(read)) is not None:
        return f"two curves, or a curve twice, read '{twice}': their steps could be told apart by subtraction"
    names = {spec.name for spec in request.columns}
    categories = {spec.name: spec for spec in request.categories}
    for curve in request.curves:
        if (both := next((name for name in (curve.duration, curve.event) if name in names), None)) is not None:
            return (
                f"'{both}' is read by curve '{curve.name}' and stands among the columns: counts of it and the steps of "
                "the curve could be told apart by subtraction; ask for one of them"
            )
        if not 0 < curve.unit <= curve.until:
            return f"curve '{curve.name}': `unit` is above 0 and not above `until`"
        if abs(curve.until / curve.unit - curve.times) > 1e-9 * curve.times:
            return f"curve '{curve.name}': `until` has to be a multiple of `unit`"
        if _repeated(curve.by) is not None or (unknown := [name for name in curve.by if name not in categories]):
            return f"curve '{curve.name}' is split by categories among the columns, each once: {unknown}"
        strata = 1 + sum(len(categories[name].levels) + 1 for name in curve.by)
        if curve.times * strata > MAX_TIMES:
            return f"curve '{curve.name}' has more than {MAX_TIMES} times over all its strata: take a wider `unit`"
    return None


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
