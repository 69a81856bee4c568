"""`isthmus check` of a statistics job: what each party's data say, the bytes at most, who would learn what."""

from __future__ import annotations

import json
from math import prod

from ....horizontal.counting import counted_shapes, size_of, spread_shapes
from ....horizontal.request import CountTable, Curve, StatisticsRequest
from ....horizontal.schema import ColumnSpec
from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.policy import Grant
from ...check import Leaving, Look
from ..star_check import Ways, agreeing, both_ways, look_at_columns, star_learns, statistics_ways
from ..star_phases import OwnColumns
from .job import StatisticsJob

# As JSON: a bin, a count without the names of its groups, a step of a curve, a quantile, all else about a column, a
# level or a stratum; the name of a band.
BIN_NBYTES, CELL_NBYTES, STEP_NBYTES, QUANTILE_NBYTES, ELSE_NBYTES, BAND_NBYTES = 110, 50, 230, 130, 500, 60


def look(home: PartyHome, job: StatisticsJob, grant: Grant) -> Look:
    """Read what the job would use of one member."""
    if home.name == job.coordinator:
        return Look()

    def read_times(own: OwnColumns) -> None:
        for curve in job.curves:
            own.store.durations(curve.duration, curve.event, own.row_ids)

    return look_at_columns(home, job, read_times)


def leaving(job: StatisticsJob, rows: dict[str, int | None]) -> list[Leaving]:
    """Bytes that would leave each member for another, at most. They do not depend on the rows."""
    sums = "masked sums" if job.secure_aggregation else "its own sums"
    told = "ranges, and the result: what may be told"
    return [*agreeing(job), *both_ways(job, Topic.STATISTICS, _measuring(job), sums, told)]


def learns(job: StatisticsJob) -> list[tuple[str, str]]:
    """Pairs of a member and something it learns, for a person to read."""
    coordinator = job.coordinator
    sums = "all counts, histograms and sums over all parties' patients, small ones too"
    if not job.secure_aggregation:
        sums = "every party's own counts, histograms and sums, small ones too"
    floor = f"fewer than {job.at_least} patients (or more, if a policy asks for more)"
    return [
        (coordinator, sums),
        ("each party", "the result; and so, by taking away its own patients, the same of the others together"),
        (
            "who reads the report",
            f"the result, as far as {coordinator}'s policy publishes it: no count of {floor}, and none from which such "
            "a one could be worked out",
        ),
        *star_learns(job),
    ]


def _measuring(job: StatisticsJob) -> Ways:
    request = job.request()
    cuts = sum(map(len, request.edges.values()))
    binned = 1 + len(request.numbers) * (request.bins + 1) + cuts
    sizes = [size_of(counted_shapes(request)), binned, size_of(spread_shapes(request))]
    result = binned * BIN_NBYTES + len(request.numbers) * len(request.quantiles) * QUANTILE_NBYTES
    result += sum(_table_nbytes(request, table) for table in request.tables)
    result += sum(_curve_nbytes(request, curve) for curve in request.curves)
    result += len(json.dumps(job.canonical())) + (1 + len(request.columns)) * ELSE_NBYTES
    return statistics_ways(job, sizes, len(request.numbers), result)


def _table_nbytes(request: StatisticsRequest, table: CountTable) -> int:
    """All cells with their margins; each names its groups."""
    names = sum(_longest(request.spec(by.column)) for by in table.by)
    cells = prod(request.groups(by.column) + 2 for by in table.by)  # with others, and with all
    return cells * (CELL_NBYTES + names)


def _curve_nbytes(request: StatisticsRequest, curve: Curve) -> int:
    """All steps of all strata; each stratum names its column and level."""
    specs = [request.spec(name) for name in curve.by]
    strata = 1 + sum(len(spec.levels) for spec in specs)
    names = ELSE_NBYTES + sum(len(json.dumps(spec.name)) + _longest(spec) for spec in specs)
    return strata * (curve.times * STEP_NBYTES + names)


def _longest(spec: ColumnSpec) -> int:
    """The longest name of a column's groups."""
    return max([BAND_NBYTES, *(len(json.dumps(level)) for level in spec.levels)])
