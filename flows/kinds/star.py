"""Jobs of a coordinator and parties with the same columns about different patients: what horizontal training and
statistics have in common.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..jobs import Form, Job, Name


class PartyInStar(Form):
    """Who brings rows, and under which name its party.yaml keeps them."""

    name: Name = Field(title="Party", description="The party's name: that of its home.", examples=["north"])
    dataset: str = Field(
        title="Dataset", description="A dataset that the party's party.yaml defines.", examples=["admissions"]
    )


class ColumnInStar(Form):
    """One column that every party brings: a line of the data dictionary that all agree on."""

    name: str = Field(title="Name", description="As every party's dataset calls it.", examples=["age"])
    kind: Literal["number", "category"] = Field(title="Kind", description="A number, or one of some levels.")
    levels: tuple[str, ...] = Field(
        default=(),
        max_length=1000,
        title="Levels",
        description="Of a category: the values that count. Others count as unknown.",
        examples=[["female", "male"]],
    )
    unit: str | None = Field(
        default=None,
        max_length=40,
        title="Unit",
        description="Of a number: every party's party.yaml has to declare the same one.",
        examples=["mg/dL"],
    )

    @model_validator(mode="after")
    def _levels_belong_to_categories(self) -> ColumnInStar:
        if (self.kind == "category") != bool(self.levels):
            raise ValueError(f"column {self.name!r}: a category has levels, and a number has none")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"column {self.name!r} names a level twice")
        return self


def _short(value: Any) -> Any:
    """A bare name stands for a number."""
    return [{"name": one, "kind": "number"} if isinstance(one, str) else one for one in value] if value else value


Columns = Annotated[
    tuple[ColumnInStar, ...],
    Field(min_length=1, max_length=1000),
    BeforeValidator(_short, json_schema_input_type=tuple[str | ColumnInStar, ...]),
    Field(title="Columns", description="What every party brings."),
]


class StarJob(Job):
    """Fields come in each kind's own model."""

    coordinator: Name = Field(
        default="coordinator",
        title="Coordinator",
        description="The member that adds up and brings no rows: it has a home and keys of its own.",
    )
    parties: tuple[PartyInStar, ...] = Field(
        min_length=2, max_length=256, title="Parties", description="Who takes part and with what."
    )
    columns: Columns
    secure_aggregation: bool = Field(
        default=True,
        title="Secure aggregation",
        description="The coordinator sees sums over parties and never one party's numbers. It needs three parties; "
        "without it, every policy has to say plain_updates: allow.",
    )

    @model_validator(mode="after")
    def _members_fit_together(self) -> StarJob:
        names = [party.name for party in self.parties]
        if len(set(names)) < len(names):
            raise ValueError("two parties have the same name")
        if self.coordinator in names:
            raise ValueError(f"{self.coordinator} cannot be a party and the coordinator")
        columns = [column.name for column in self.columns]
        if len(set(columns)) < len(columns):
            raise ValueError("two columns have the same name")
        if self.secure_aggregation and len(names) < 3:
            raise ValueError(
                "secure aggregation needs three parties: of two, each could subtract its own numbers from the sum; "
                "with `secure_aggregation: false` every policy has to say `plain_updates: allow`"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The parties, in the job's order."""
        return tuple(party.name for party in self.parties)

    @property
    def members(self) -> tuple[str, ...]:
        """The parties and the coordinator."""
        return (*self.names, self.coordinator)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """The coordinator speaks to every party, and no party to another."""
        return tuple((self.coordinator, name) for name in self.names)

    @property
    def fewest(self) -> int:
        """How many parties a sum has to have at least: parties refuse to help to unmask one of fewer."""
        return len(self.parties)

    def role(self, name: str) -> str:
        """Coordinator or party."""
        return "coordinator" if name == self.coordinator else "party"

    def dataset(self, name: str) -> str | None:
        """The dataset of a party; None for the coordinator."""
        return next((party.dataset for party in self.parties if party.name == name), None)

    def others(self, name: str) -> tuple[str, ...]:
        """All members but one."""
        return tuple(member for member in self.members if member != name)

    def star_aliases(self) -> set[str]:
        """The names that every such job holds. Levels are not among them: events name them by their place."""
        names = {self.kind, *self.members}
        return names | {party.dataset for party in self.parties} | {column.name for column in self.columns}
