"""The statistics job: counts, summaries and survival curves over all parties' rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ....parties.events import Phase
from ....parties.policy import Terms
from ...jobs import Form
from ..star import StarJob

if TYPE_CHECKING:
    from ....horizontal.request import StatisticsRequest


def _names(value: Any) -> Any:
    """One name stands for a list of it."""
    return [value] if isinstance(value, str) else value


class GroupingForm(Form):
    """A column to count by."""

    column: str = Field(title="Column", description="A category, or a number that `edges` cut.", examples=["region"])
    edges: tuple[float, ...] = Field(
        default=(), max_length=1000, title="Edges", description="Of a number: where its bands begin.",
        examples=[[18, 40, 65]],
    )  # fmt: skip


def _grouping(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


_Grouping = Annotated[GroupingForm, BeforeValidator(_grouping, json_schema_input_type=str | GroupingForm)]


def _table(value: Any) -> Any:
    return {"by": value} if isinstance(value, list | tuple) else value


class TableForm(Form):
    """Counts of patients by one to three columns, with all margins."""

    by: tuple[_Grouping, ...] = Field(min_length=1, max_length=3, title="By", description="The columns.")

    @property
    def name(self) -> str:
        """What the table is called."""
        return " × ".join(one.column for one in self.by)


_Table = Annotated[
    TableForm, BeforeValidator(_table, json_schema_input_type=tuple[str | GroupingForm, ...] | TableForm)
]


class CurveForm(Form):
    """Kaplan-Meier curves of all patients, and by the levels of categories."""

    name: str = Field(max_length=64, title="Name", description="What the curve shows.", examples=["survival"])
    duration: str = Field(title="Duration", description="The time under observation, above 0.")
    event: str = Field(title="Event", description="1 if the event came, 0 if it did not.")
    until: float = Field(gt=0, title="Until", description="Where the curve ends, a multiple of the unit.")
    unit: float = Field(default=1.0, gt=0, title="Unit", description="The grid that times are counted on.")
    by: Annotated[tuple[str, ...], BeforeValidator(_names, json_schema_input_type=str | tuple[str, ...])] = Field(
        default=(), max_length=8, title="By", description="Categories: a curve for each of their levels."
    )


class StatisticsJob(StarJob):
    """Same columns, other patients: count and describe them all, with a coordinator that sees sums alone."""

    model_config = ConfigDict(title="Statistics job")
    phases: ClassVar[tuple[Phase, ...]] = (Phase.AGREE, Phase.MEASURE, Phase.CLOSE)
    units: ClassVar[Mapping[Phase, str]] = {Phase.MEASURE: "pass"}

    kind: Literal["statistics"] = Field(default="statistics", title="Kind", description="The kind of job.")
    tables: tuple[_Table, ...] = Field(
        default=(), max_length=32, title="Tables", description="Counts by one to three columns, with their margins."
    )
    curves: tuple[CurveForm, ...] = Field(default=(), max_length=16, title="Curves", description="Kaplan-Meier curves.")
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.05, 0.25, 0.5, 0.75, 0.95), max_length=99, title="Quantiles", description="Of every number."
    )
    bins: int = Field(
        default=512, ge=8, le=8192, title="Bins", description="Of a number's histogram: a quantile is right to one."
    )
    at_least: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        title="At least",
        description="A count of fewer patients is never told, nor what would give it away; policies may ask for more.",
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        self.request()
        return self

    def request(self) -> StatisticsRequest:
        """What the algorithms take; raises `ValueError` for what cannot be asked, or not together."""
        from ....horizontal.request import CountTable, Curve, Grouping, StatisticsRequest
        from ....horizontal.schema import ColumnSpec

        tables = tuple(
            CountTable(table.name, tuple(Grouping(by.column, by.edges) for by in table.by)) for table in self.tables
        )
        return StatisticsRequest(
            columns=tuple(ColumnSpec(**column.model_dump()) for column in self.columns),
            tables=tables,
            curves=tuple(Curve(**curve.model_dump()) for curve in self.curves),
            quantiles=self.quantiles,
            bins=self.bins,
            floor=self.at_least,
        )

    def terms(self, name: str) -> Terms:
        """What one member's policy judges."""
        common: dict[str, Any] = {
            "kind": self.kind,
            "purpose": self.purpose,
            "party": name,
            "peers": self.others(name),
            "dataset": self.dataset(name),
        }
        if name == self.coordinator:
            return Terms(**common)
        return Terms(
            **common,
            columns=tuple(column.name for column in self.columns),
            labels=self.labels,
            cohort=self.at_least,
            plain_updates=not self.secure_aggregation,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that curves read, which a party's policy has to release as labels."""
        return tuple(dict.fromkeys(name for curve in self.curves for name in (curve.duration, curve.event)))

    def aliases(self) -> frozenset[str]:
        """All names that the job itself holds: the only ones that may leave a vault."""
        return frozenset(self.star_aliases() | set(self.labels))


JOB = StatisticsJob
