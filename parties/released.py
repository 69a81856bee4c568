"""Events that carry what a statistics job has found out. Columns are the job's own; everything else is a number.

Groups, levels, tables and curves are named by their places in the job, so that no text can travel. None stands for what
is withheld: `horizontal.findings` says what each number is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo

MAX_CELLS = 2000  # in one event


def _known_alias(value: str, info: ValidationInfo) -> str:
    # A vault makes its events freely; `parse`, on both ends of the pipe, gives the names that may pass.
    if info.context is not None and value not in info.context["aliases"]:
        raise ValueError("not a name of the job")
    return value


Alias = Annotated[str, AfterValidator(_known_alias)]
Natural = Annotated[int, Field(ge=0, lt=2**63)]
Maybe = FiniteFloat | None


class Event(BaseModel):
    """What all events have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberSummary(Event):
    """One number column over all parties. A quantile is (low, high, value), a bin (low, high, count)."""

    event: Literal["number_summary"] = "number_summary"
    column: Alias
    known: Natural | None
    missing: Natural | None
    mean: Maybe
    mean_step: FiniteFloat
    standard_deviation: Maybe
    deviation_step: FiniteFloat
    low: Maybe
    high: Maybe
    quantiles: tuple[tuple[Maybe, Maybe, Maybe], ...] = Field(max_length=99)
    histogram: tuple[tuple[Maybe, Maybe, Natural | None], ...] = Field(max_length=10_000)
    with_others: Natural | None


class CategorySummary(Event):
    """One category column over all parties: counts by the job's levels."""

    event: Literal["category_summary"] = "category_summary"
    column: Alias
    counts: tuple[Natural | None, ...] = Field(max_length=1000)
    other: Natural | None
    missing: Natural | None
    rest: Natural | None
    with_others: Natural | None


class Cells(Event):
    """Counts of a table, in the order of `horizontal.findings.CountedTable`, from the one at place `first` on."""

    event: Literal["cells"] = "cells"
    table: Natural
    first: Natural
    counts: tuple[Natural | None, ...] = Field(max_length=MAX_CELLS)


class Steps(Event):
    """A stretch of one survival curve, a step (time, at risk, events, censored, survival, low, high).

    Stratum 0 is of all patients; the others are in the order of the job's categories and levels.
    """

    event: Literal["steps"] = "steps"
    curve: Natural
    stratum: Natural
    patients: Natural | None
    steps: tuple[tuple[FiniteFloat, Natural, Natural, Natural, FiniteFloat, FiniteFloat, FiniteFloat], ...] = Field(
        max_length=MAX_CELLS
    )
