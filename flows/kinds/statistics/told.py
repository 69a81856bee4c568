"""A statistics job's result as events, which name groups by their places; `restored` names them again."""

from __future__ import annotations

from collections.abc import Iterator

from ....horizontal.findings import StatisticsResult
from ....parties.events import Count, PublicEvent
from ....parties.released import MAX_CELLS, CategorySummary, Cells, NumberSummary, Steps


def events_of(result: StatisticsResult) -> Iterator[PublicEvent]:
    """All that is told. What is withheld is told as None."""
    if result.patients is not None:
        yield Count(name="patients", value=result.patients)
    for one in result.numbers:
        yield NumberSummary(
            column=one.name,
            known=one.known,
            missing=one.missing,
            mean=one.mean,
            mean_step=one.mean_step,
            standard_deviation=one.standard_deviation,
            deviation_step=one.deviation_step,
            low=one.low,
            high=one.high,
            quantiles=tuple((at.low, at.high, at.value) for at in one.quantiles),
            histogram=tuple((item.low, item.high, item.count) for item in one.histogram),
            with_others=one.with_others,
        )
    for group in result.categories:
        folded = None if group.with_others is None else group.levels.index(group.with_others)
        yield CategorySummary(
            column=group.name,
            counts=group.counts,
            other=group.other,
            missing=group.missing,
            rest=group.rest,
            with_others=folded,
        )
    for place, table in enumerate(result.tables):
        counts = tuple(cell.count for cell in table.cells)
        for first in range(0, len(counts), MAX_CELLS):
            yield Cells(table=place, first=first, counts=counts[first : first + MAX_CELLS])
    for place, curves in enumerate(result.curves):
        for number, stratum in enumerate(curves.strata):
            steps = tuple(
                (one.time, one.at_risk, one.events, one.censored, one.survival, one.low, one.high)
                for one in stratum.steps
            )
            yield Steps(curve=place, stratum=number, patients=stratum.patients, steps=steps)
