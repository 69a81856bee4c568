"""What a party's datasets look like, without a row: what `isthmus describe` writes, to be handed over for a rehearsal.

It holds what the party's policy releases and nothing else: names and types of columns and labels, units, the names of
linkage fields and how their dates are written. All of that comes from `party.yaml` and from DuckDB's DESCRIBE, which
runs no query; of a CSV file DuckDB looks at the first lines by itself, to find types. No SQL, no path, no name of a
column that is not released, no value.

Two things are told only if the party's engineer says so, and take a look at rows: how many there are, as the next power
of ten; and those levels of categories that as many rows have as the dataset's floors ask for (the higher one of
`cohort` and `at_least`; none without a floor), in alphabetical order, so that the order tells no count. How many levels
there are is never told.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..parties.errors import InputError
from ..parties.home import NAME_PATTERN, PartyHome
from ..parties.policy import Release
from ..parties.store import Store
from ..parties.strict_yaml import read_part

SUFFIX = ".schema.yaml"
MOST_LEVELS = 1000

ColumnType = Literal["number", "integer", "boolean", "category", "date", "other"]
Label = Annotated[str, Field(min_length=1, max_length=200)]
_HEADING = """\
# What {party}'s datasets look like, for `isthmus rehearse` at somebody else's: no row, no SQL, no path{but}.
# It holds what {party}'s policy releases, and is meant to be handed over. Made by `isthmus describe {party}`.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnShape(_Part):
    """A column that the policy releases. `levels` are those of a category that are told.

    Of one with nothing but a type, the type is all that a file says.
    """

    type: ColumnType
    unit: Annotated[str, Field(max_length=40)] | None = None
    levels: Annotated[tuple[Label, ...], Field(max_length=MOST_LEVELS)] = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _shortest(self, whole: SerializerFunctionWrapHandler) -> Any:
        return self.type if self.unit is None and not self.levels else whole(self)


class FieldShape(_Part):
    """A linkage field: how many columns make it up, and how its dates are written."""

    columns: Annotated[int, Field(ge=1, le=16)] = 1
    format: Annotated[str, Field(max_length=100)] | None = None


class DatasetShape(_Part):
    """One dataset. `rows` is a power of ten that it has no more rows than, if that is told."""

    columns: dict[Label, ColumnShape] = Field(default_factory=dict, max_length=2000)
    labels: dict[Label, ColumnShape] = Field(default_factory=dict, max_length=200)
    identifiers: dict[Label, FieldShape] = Field(default_factory=dict, max_length=200)
    rows: Annotated[int, Field(ge=1)] | None = None

    @property
    def all_columns(self) -> dict[str, ColumnShape]:
        """Columns and labels by name; one that is released as both is there once."""
        return {**self.columns, **self.labels}

    @model_validator(mode="after")
    def _names_differ(self) -> DatasetShape:
        names = [name.casefold() for name in self.all_columns]
        if len(set(names)) < len(names):  # as SQL does
            raise ValueError("two columns have the same name")
        return self


class PartySchema(_Part):
    """The content of a schema file."""

    party: Annotated[str, Field(pattern=NAME_PATTERN)]
    datasets: dict[Label, DatasetShape] = Field(max_length=100)


def describe(home: PartyHome, *, rows: bool = False, levels: bool = False) -> PartySchema:
    """What a party's policy releases, by its types; with `rows` and `levels` what the module's first words say.

    Raises `InputError` ``schema.empty``, ``data.column_unknown`` for a column that is released and not there, and those
    of `Store`.
    """
    release = home.config.policy.release
    if not release:
        raise InputError("schema.empty", party=home.name)
    datasets = {name: _dataset(home, name, release[name], rows=rows, levels=levels) for name in sorted(release)}
    return PartySchema(party=home.name, datasets=datasets)


def schema_text(schema: PartySchema) -> str:
    """The file that people read and hand over."""
    told = schema.datasets.values()
    more = ["about how many rows"] if any(one.rows for one in told) else []
    more += ["levels of categories"] if any(c.levels for one in told for c in one.all_columns.values()) else []
    but = ";\n# but by its engineer's leave " + " and ".join(more) if more else ", no value"
    content = schema.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)  # ASCII, as people compare it
    return _HEADING.format(party=schema.party, but=but) + text


def read_schema(path: Path, party: str) -> PartySchema:
    """A schema file that somebody has handed over.

    Raises `InputError` ``schema.missing`` and ``schema.invalid``, also for that of another party.
    """
    if not path.is_file():
        raise InputError("schema.missing", party=party, where=str(path))
    try:
        found = read_part(PartySchema, path)
    except InputError as failure:
        field, problem = (str(failure.facts.get(name, "")) for name in ("field", "problem"))
        problem = problem or "it cannot be read"
        raise InputError("schema.invalid", party=party, field=field, problem=problem, where=str(path)) from failure
    if found.party != party:
        raise InputError(
            "schema.invalid", party=party, field="party", problem="it is that of another party", where=str(path)
        )
    return found


def column_type(duckdb_type: str) -> ColumnType:
    """DuckDB's name of a type, which of an ENUM holds its values, in a word that holds none."""
    word = re.split(r"\W", duckdb_type, maxsplit=1)[0].upper()
    if duckdb_type.endswith("]"):
        return "other"
    if re.fullmatch(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?", word):
        return "integer"
    words: dict[str, ColumnType] = {
        "FLOAT": "number",
        "DOUBLE": "number",
        "DECIMAL": "number",
        "BOOLEAN": "boolean",
        "VARCHAR": "category",
        "ENUM": "category",
        "DATE": "date",
        "TIMESTAMP": "date",
    }
    return words.get(word, "other")


# --- below: one dataset -----------------------------------------------------------------------------------------------


def _dataset(home: PartyHome, name: str, release: Release, *, rows: bool, levels: bool) -> DatasetShape:
    store, config = Store(home, name), home.config.datasets[name]
    found = store.types()

    def shape(column: str) -> ColumnShape:
        if column not in found:
            raise InputError("data.column_unknown", party=home.name, dataset=name, column=column)
        kind = config.types.get(column) or column_type(found[column])
        told = _common_levels(store, column, release) if levels and kind == "category" else ()
        return ColumnShape(type=kind, unit=config.units.get(column), levels=told)

    return DatasetShape(
        columns={column: shape(column) for column in release.columns},
        labels={column: shape(column) for column in release.labels},
        identifiers={
            field: FieldShape(columns=len(one.columns), format=one.format) for field, one in config.identifiers.items()
        },
        rows=_next_power_of_ten(len(store.row_ids())) if rows else None,
    )


def _common_levels(store: Store, column: str, release: Release) -> tuple[str, ...]:
    """The levels that enough rows have: none where the policy has no floor."""
    floor = max(release.cohort or 0, release.at_least or 0)
    if not floor:
        return ()
    try:
        (values,) = store.columns([column], store.row_ids())
    except InputError as failure:
        if failure.code == "data.column_empty":
            return ()
        raise
    counts = Counter(value for value in values.values.tolist() if value)
    return tuple(sorted(level for level, count in counts.items() if count >= floor and len(level) <= 200)[:MOST_LEVELS])


def _next_power_of_ten(count: int) -> int:
    power = 1
    while power < count:
        power *= 10
    return power
