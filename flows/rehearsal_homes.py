"""Homes for a rehearsal: a party.yaml that allows one job and nothing else, a DuckDB of synthetic rows, keys.

What the rows look like is what each party's schema says (`schema_of`), and where the job asks for what no schema has,
what the job says of it: then a note says so, since the real run would stop there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ..parties.errors import disk_errors
from ..parties.files import PRIVATE, make_private_folder, write_whole
from ..parties.home import PARTY_FILE, PartyHome
from ..parties.identity import Identity
from ..parties.policy import ALL, Policy, Release
from ..parties.strict_yaml import yaml_text
from .jobs import Job
from .kinds.aligned import AlignedJob
from .kinds.finetune.job import FinetuneJob
from .kinds.horizontal.job import HorizontalJob, LabelForm
from .kinds.star import ColumnInStar, StarJob
from .kinds.statistics.job import StatisticsJob
from .rehearsal_needs import amended
from .rehearsal_rows import DEFAULT_LEVELS, Made, People, TableShape, TargetKind, identifier_columns, who_is_where
from .schema_of import ColumnShape, DatasetShape, FieldShape, PartySchema

ROW_ID = "rehearsal row"
TABLE = "synthetic"
SQL = "SELECT * FROM synthetic"
START_FILE = Path("models") / "rehearsal" / "start.safetensors"


@dataclass(frozen=True)
class Rehearsed:
    """The shape of one party's rows, the columns that it releases, and what was made up for want of a schema's word."""

    dataset: str
    table: TableShape
    released: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def shape_of(job: Job, party: str, schema: PartySchema) -> Rehearsed:
    """What the rows of a party look like that brings some to a job."""
    dataset = job.terms(party).dataset
    assert dataset is not None
    told = schema.datasets.get(dataset)
    notes = [] if told is not None else [f"{party} releases no dataset '{dataset}': all of it is made up"]
    shape = told or DatasetShape()
    targets, until = _targets(job, party)
    columns: dict[str, ColumnShape] = {
        name: _with_levels(job, name, one) for name, one in shape.columns.items() if name not in targets
    }
    for name in job.terms(party).columns:
        if name not in (ALL, *columns, *targets):
            columns[name] = _made_up(job, name)
            if told is not None:
                notes.append(f"{party} releases no column '{name}': it is made up, as a {columns[name].type}")
    fields = {name for passed in job.align.passes for name in passed} if isinstance(job, AlignedJob) else set()
    identifiers = {}
    for name in sorted(fields):
        identifiers[name] = shape.identifiers.get(name, FieldShape())
        if told is not None and name not in shape.identifiers:
            notes.append(f"{party} declares no identifier '{name}': it is made up")
    labels = {name: shape.all_columns[name] for name in targets if name in shape.all_columns}
    if told is not None:
        of_labels = job.terms(party).labels
        words = {name: "label" if name in of_labels else "column" for name in targets if name not in labels}
        notes += [f"{party} releases no {word} '{name}': it is made up" for name, word in words.items()]
    table = TableShape({**columns, **labels}, targets, identifiers, until)
    return Rehearsed(dataset, table, tuple(columns), notes)


def make_homes(
    folder: Path, job: Job, shapes: Mapping[str, Rehearsed], *, rows: int, overlap: float, seed: int
) -> tuple[Job, list[str]]:
    """Make the homes of all members of a job below `folder`; `shapes` are of those that bring rows.

    Returns the job, with the model that a finetune job starts from, and notes on what identifiers cannot match. Raises
    `InputError` ``disk.full`` and ``disk.denied``.
    """
    fields = [(party, name, one) for party, shape in shapes.items() for name, one in shape.table.identifiers.items()]
    passes = job.align.passes if isinstance(job, AlignedJob) else ()
    where = who_is_where(tuple(shapes), rows, overlap if isinstance(job, AlignedJob) else 0.0)
    people = People(
        1 + max((int(who.max()) for who in where.values()), default=0),
        seed,
        alone=frozenset(passed[0] for passed in passes if len(passed) == 1),
        dates=frozenset(name for _, name, one in fields if one.format),
    )
    leader = job.leader if isinstance(job, AlignedJob) else None
    for number, member in enumerate(job.members):
        home = folder / member
        make_private_folder(home)
        if member in shapes:
            shape = shapes[member]
            who = np.random.default_rng([seed, number]).permutation(where[member])
            made = people.table(shape.table, who, party=member, mistyped=member != leader)
            with disk_errors(member):
                _write_rows(home / f"{member}.duckdb", made, len(who))
            if isinstance(job, FinetuneJob):
                job = _with_start(job, home, shape, made)
    keys: dict[str, str] = {}
    for _ in range(2):  # it takes a home to make its key, which the homes of all name
        for number, member in enumerate(job.members):
            content = _party(job, member, shapes.get(member), keys, seed + number)
            write_whole(folder / member / PARTY_FILE, yaml_text(content).encode(), party=member, mode=PRIVATE)
        keys = {member: Identity(PartyHome(folder / member)).public.hex() for member in job.members}
    return job, _unlike(fields)


# --- below: what the job says of columns ------------------------------------------------------------------------------


def _targets(job: Job, party: str) -> tuple[dict[str, TargetKind], dict[str, float]]:
    """The columns that are learnt or counted by as outcomes, and where durations end."""
    targets: dict[str, TargetKind] = {}
    until: dict[str, float] = {}
    if isinstance(job, StatisticsJob):
        for curve in job.curves:
            targets |= {curve.duration: "duration", curve.event: "event"}
            until[curve.duration] = curve.until
    elif isinstance(job, HorizontalJob | FinetuneJob):
        targets |= _label(job.label)
        if job.split.column is not None:
            targets[job.split.column] = "part"
    else:
        targets |= dict.fromkeys(job.terms(party).labels, "binary")
    return targets, until


def _label(label: LabelForm) -> dict[str, TargetKind]:
    if label.duration is not None and label.event is not None:
        return {label.duration: "duration", label.event: "event"}
    return {str(label.column): label.task}


def _in_job(job: Job, name: str) -> ColumnInStar | None:
    columns = job.columns if isinstance(job, StarJob) else ()
    return next((column for column in columns if column.name == name), None)


def _with_levels(job: Job, name: str, shape: ColumnShape) -> ColumnShape:
    """The levels are those that the schema tells; else the job's, which its data would have to be like."""
    column = _in_job(job, name)
    if shape.type != "category" or shape.levels or column is None or not column.levels:
        return shape
    return shape.model_copy(update={"levels": column.levels})


def _made_up(job: Job, name: str) -> ColumnShape:
    column = _in_job(job, name)
    if column is None:
        return ColumnShape(type="number")
    return ColumnShape(type=column.kind, unit=column.unit, levels=column.levels)


def _unlike(fields: list[tuple[str, str, FieldShape]]) -> list[str]:
    """Linkage fields that parties declare so that they can hardly match."""
    notes = []
    for name in dict.fromkeys(name for _, name, _ in fields):
        shapes = {party: one for party, of, one in fields if of == name}
        undated = [party for party, one in shapes.items() if one.format is None]
        if 0 < len(undated) < len(shapes):
            notes.append(f"identifier '{name}' has a date format at others and none at {', '.join(undated)}: no match")
        if len({one.columns for one in shapes.values()}) > 1:
            counts = ", ".join(f"{one.columns} at {party}" for party, one in shapes.items())
            notes.append(f"identifier '{name}' is made of different numbers of columns ({counts}): no match")
    return notes


# --- below: files -----------------------------------------------------------------------------------------------------


def _party(job: Job, member: str, shape: Rehearsed | None, keys: Mapping[str, str], seed: int) -> dict[str, Any]:
    """The content of a party.yaml that allows this job and nothing else."""
    policy, _ = amended(Policy(publish=("counts", "metrics", "curves")), job.terms(member))
    common = {"name": member, "seed": seed, "keys": dict(keys)}
    if shape is None:
        return {**common, "policy": policy.model_dump(mode="json", exclude_defaults=True)}
    before = policy.release.get(shape.dataset, Release())
    columns = tuple(dict.fromkeys((*shape.released, *before.columns)))
    policy = policy.model_copy(update={"release": {shape.dataset: before.model_copy(update={"columns": columns})}})
    identifiers = {
        name: {"columns": identifier_columns(name, one), **({"format": one.format} if one.format else {})}
        for name, one in shape.table.identifiers.items()
    }
    units = {name: one.unit for name, one in shape.table.columns.items() if one.unit is not None}
    dataset = {"sql": SQL, "row_id": ROW_ID, "identifiers": identifiers, "units": units}
    return {
        **common,
        "data": f"{member}.duckdb",
        "datasets": {shape.dataset: dataset},
        "policy": policy.model_dump(mode="json", exclude_defaults=True),
    }


def _write_rows(path: Path, made: Mapping[str, Made], count: int) -> None:
    """Write a table of these columns, beside a number for each row."""
    columns = {f"c{number}": one.values for number, one in enumerate(made.values())}
    chosen = [f'id AS "{ROW_ID}"']
    for number, (name, one) in enumerate(made.items()):
        value = f"c{number}"
        if one.values.dtype.kind == "f":
            value = f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END"
        quoted = name.replace('"', '""')
        chosen.append(f'CAST({value} AS {one.sql_type}) AS "{quoted}"')
    with duckdb.connect(path) as connection:
        connection.register("made", {"id": np.arange(1, count + 1), **columns})
        connection.execute(f"CREATE TABLE {TABLE} AS SELECT {', '.join(chosen)} FROM made")  # noqa: S608  (quoted)


def _with_start(job: FinetuneJob, home: Path, shape: Rehearsed, made: Mapping[str, Made]) -> FinetuneJob:
    """Make an untrained model to start from, and let the job name it."""
    from ..horizontal.codes import CategoryCode, NumberCode  # with torch
    from ..horizontal.model_file import SavedModel, arrays_of
    from ..horizontal.model_spec import ModelSpec
    from ..horizontal.models import build
    from ..horizontal.tabular import TabularEncoder

    spec = ModelSpec("network", job.model.hidden, job.model.dropout)
    numbers, categories = [], []
    for name in job.columns:
        column = shape.table.columns[name]
        if column.type == "category":
            categories.append(CategoryCode(name, column.levels or DEFAULT_LEVELS))
        elif made[name].values.dtype.kind == "f":
            values = made[name].values
            numbers.append(NumberCode(name, float(np.nanmean(values)), float(np.nanstd(values)) or 1.0, True))
        else:
            numbers.append(NumberCode(name, 0.0, 1.0, True))
    encoder = TabularEncoder(numbers, categories)
    arrays = arrays_of(build(spec, encoder, 1, job.task, party=job.party.name))
    model = SavedModel("nobody", {}, 0, job.task, spec, encoder, arrays)
    model.save(home / START_FILE, party=job.party.name)
    digest = hashlib.sha256((home / START_FILE).read_bytes()).hexdigest()
    content = job.canonical()
    return type(job).model_validate({**content, "start": {**content["start"], "digest": digest}})
