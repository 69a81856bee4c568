"""`isthmus check` of a statistics job: what each party's data say, the bytes at most, who would learn what."""

from __future__ import annotations

import json

from ....horizontal.counting import MAGNITUDES, counted_shapes, size_of, spread_shapes
from ....parties.errors import IsthmusError
from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.policy import Grant
from ...check import Leaving, Look
from ..star_check import Ways, agreeing, both_ways, differing, own_columns, star_learns, statistics_ways
from .job import StatisticsJob

# As JSON: a bin, a count with the names of its groups, a step of a curve, a quantile, all else about a column.
BIN_NBYTES, CELL_NBYTES, STEP_NBYTES, QUANTILE_NBYTES, COLUMN_NBYTES = 100, 40, 230, 120, 500


def look(home: PartyHome, job: StatisticsJob, grant: Grant) -> Look:
    """Read what the job would use of one member."""
    if home.name == job.coordinator:
        return Look()
    rows: int | None = None
    differences: tuple[tuple[str, str], ...] = ()
    try:
        found = own_columns(home, job)
        rows, differences = len(found.row_ids), found.differences
        if differences:
            raise differing()
        for curve in job.curves:
            found.store.durations(curve.duration, curve.event, found.row_ids)
    except IsthmusError as error:
        return Look(rows, error, differences)
    return Look(rows)


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
    counted = counted_shapes(request)
    cuts = sum(len(request.edges.get(spec.name, ())) for spec in request.numbers)
    binned = 1 + len(request.numbers) * (request.bins + 1) + cuts
    sizes = [size_of(counted), binned, size_of(spread_shapes(request))]
    cells = sum(size for name, size in _margins(job).items())
    steps = size_of(counted) - len(request.numbers) * (len(MAGNITUDES) + 2)
    result = (
        binned * BIN_NBYTES
        + cells
        + steps * STEP_NBYTES
        + len(request.numbers) * len(request.quantiles) * QUANTILE_NBYTES
        + (len(request.columns) + 1) * COLUMN_NBYTES
        + 2 * len(json.dumps(job.canonical()))  # names of columns, levels, tables and curves
    )
    return statistics_ways(job, sizes, len(request.numbers), result)
