"""`isthmus rehearse`: a whole job on synthetic rows, before lawyers are done and any other party's home can be reached.

::

    1  a schema of each party that brings rows: its file in `--schemas`, else its home here, of which types are read
    2  notes: what the policies of homes here would refuse, what no schema knows and had to be made up
    3  homes of synthetic rows in a temporary folder, each with a policy that allows this job and nothing else
    4  the job, by the same code as `isthmus run`: vaults as processes, channels, PSI, training, report
    5  what a real run still needs: signature, entries in policies

No real row is read and nothing of a real home is changed or used but its party.yaml and its DESCRIBE; the ledgers are
those of the synthetic homes. So that nobody takes a rehearsal for a run, the job has another name (`rehearsal-…`) and
another purpose, which say so wherever they are shown: in Prefect, in the report, in the artifact. Its digest is another
one too, and its runs are in a folder of their own, where no later job looks for a model to start from.
"""

from __future__ import annotations

import contextlib
import io
import json as json_module
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from rich.console import Console

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, IsthmusError
from ..parties.home import PARTY_FILE, PartyHome
from ..parties.policy import Policy
from .jobs import Job
from .kinds.aligned import AlignedJob
from .kinds.finetune.job import FinetuneJob
from .kinds.transfer.job import TransferJob
from .rehearsal_homes import Rehearsed, make_homes, shape_of
from .rehearsal_needs import amended
from .schema_of import SUFFIX, PartySchema, describe, read_schema
from .terminal import console

if TYPE_CHECKING:
    from ..parties.starts import Start

BANNER = "REHEARSAL: synthetic rows; the numbers mean nothing"
PREFIX = "rehearsal-"
ROWS = 500
_NAME_LENGTH, _PURPOSE_LENGTH = 32, 200
_ENOUGH = 1.5  # times the shared patients that a floor asks for, since some identifiers are mistyped


class Need(NamedTuple):
    """Something that a real run needs; `entries` are those that a policy lacks, in the form of party.yaml."""

    what: str
    party: str | None = None
    entries: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Rehearsal:
    """What is rehearsed: the job with its other name, what each party's rows look like, notes, and what a run needs."""

    job: Job
    shapes: Mapping[str, Rehearsed]
    notes: tuple[str, ...]
    needs: tuple[Need, ...]
    rows: int


def plan(
    job: Job,
    homes: Path,
    *,
    schemas: Path | None = None,
    rows: int | None = None,
    overlap: float = 0.6,
    start: Start | None = None,
    runs: Path = Path("runs"),
) -> Rehearsal:
    """Read what is known of each party, and say what a real run would lack. Reads no row, and makes nothing.

    Without `rows` there are 500 a party, or as many as the job's floors take. Raises `InputError` ``schema.missing``
    for a party with neither a schema file nor a home here, ``job.invalid`` for too few rows or too small an overlap,
    and those of `read_schema` and `describe`.
    """
    needed = _rows_needed(job, overlap)
    if rows is not None and rows < needed:
        problem = f"with an overlap of {overlap:g} the job's floors take {needed:,} rows a party, not {rows:,}"
        raise InputError("job.invalid", problem=problem, where="--rows, --overlap")
    here = {name: PartyHome(homes / name) for name in job.members if (homes / name / PARTY_FILE).is_file()}
    shapes = {
        name: shape_of(job, name, _schema(name, here.get(name), schemas))
        for name in job.members
        if job.terms(name).dataset is not None
    }
    notes = [
        f"{name}'s policy would refuse: {refusal.what}"
        for name, home in here.items()
        if (refusal := _refusal(home.config.policy, job, name)) is not None
    ]
    notes += [note for shape in shapes.values() for note in shape.notes]
    if isinstance(job, FinetuneJob):
        notes.append("the model to start from is made up and untrained: the real one is not looked for")
    named = {"name": _short_name(job.name), "purpose": f"{BANNER}. {job.purpose}"[:_PURPOSE_LENGTH]}
    return Rehearsal(
        job=type(job).model_validate({**job.canonical(), **named}),
        shapes=shapes,
        notes=tuple(notes),
        needs=tuple(_needs(job, here, start, runs)),
        rows=rows or max(ROWS, needed),
    )


def rehearse_and_show(
    found: Rehearsal, *, runs: Path, keep: Path | None, overlap: float, seed: int, json: bool
) -> None:
    """Make the homes, run the job, mark its report, and print what a real run still needs.

    `keep` is an empty folder that the homes are left in; without it they are removed, unless the run fails, whose logs
    are in them. Raises `InputError` ``rehearsal.folder``, and whatever a run raises.
    """
    out = Console(stderr=True, highlight=False) if json else console
    with _folder(keep) as folder:
        homes = folder / "homes"
        job, unlike = make_homes(homes, found.job, found.shapes, rows=found.rows, overlap=overlap, seed=seed)
        notes = [*found.notes, *unlike]
        out.print(f"{BANNER}\n", style="bold reverse")
        for note in notes:
            out.print(f"  note  {note}", soft_wrap=True, markup=False)
        try:
            summary = _run(job, homes, runs, json=json)
        except IsthmusError:
            kept = folder if keep else shutil.move(folder, f"{folder}-failed")
            out.print(f"  the homes of this rehearsal, with the vaults' logs, are in {kept}", soft_wrap=True)
            raise
    report = _mark(runs / summary["run"], summary)
    where = f"kept in {keep}" if keep else "removed, with their parts of the model; --keep FOLDER keeps them"
    if json:
        needs = [need._asdict() for need in found.needs]
        said = {"rehearsal": True, "notes": notes, "needs": needs, "report": str(report), "summary": summary}
        sys.stdout.write(json_module.dumps(said) + "\n")
        return
    out.print(f"  homes   {where}\n", soft_wrap=True, markup=False)
    out.print(BANNER, style="bold reverse")
    nothing = "" if found.needs else " nothing: every home is here and allows it"
    out.print(f"what a real run still needs:{nothing}")
    for need in found.needs:
        out.print(f"  - {need.what}", soft_wrap=True, markup=False)
        if need.entries:
            text = yaml.safe_dump(dict(need.entries), sort_keys=False, default_flow_style=None, width=100)
            out.print(textwrap.indent(text.rstrip(), " " * 6), soft_wrap=True, markup=False)


# --- below: what is known of the parties ------------------------------------------------------------------------------


def _schema(party: str, home: PartyHome | None, schemas: Path | None) -> PartySchema:
    """A file that was handed over comes before a home: whoever puts one there means it."""
    path = (schemas or Path()) / f"{party}{SUFFIX}"
    if schemas is not None and path.is_file():
        return read_schema(path, party)
    if home is not None:
        return describe(home)
    raise InputError("schema.missing", party=party, where=f"--schemas {schemas}" if schemas else "")


def _refusal(policy: Policy, job: Job, party: str) -> IsthmusError | None:
    try:
        policy.check(job.terms(party))
    except IsthmusError as refusal:
        return refusal
    return None


def _rows_needed(job: Job, overlap: float) -> int:
    """Rows a party has to have so that the floors of the job itself are met."""
    least = 0.0
    if isinstance(job, AlignedJob):
        least = job.align.at_least * _ENOUGH / overlap
    if isinstance(job, TransferJob) and job.split.at_least is not None:
        least = max(least, job.split.at_least * _ENOUGH / overlap)
    return ceil(least)


def _short_name(name: str) -> str:
    return f"{PREFIX}{name}"[:_NAME_LENGTH]


def _needs(job: Job, here: Mapping[str, PartyHome], start: Start | None, runs: Path) -> Iterator[Need]:
    """What stands between this rehearsal and a run."""
    starter = start.by if start is not None else "MEMBER"
    apart = {name for name in job.members if name not in here or consortium_of(here[name]) is not None}
    if start is None and apart:
        yield Need("in a consortium a signature: `isthmus sign JOB --as MEMBER`")
    if isinstance(job, FinetuneJob):
        try:
            job.completed(runs)
        except InputError as failure:
            yield Need(f"the model to start from: {failure.what}; {failure.next}", job.party.name)
    for name in job.members:
        home = here.get(name)
        policy = home.config.policy if home is not None else Policy()
        _, entries = amended(policy, job.terms(name))
        if name in apart and policy.rate(starter, job.kind) is None:
            entries["starts"] = {starter: {job.kind: "4 per day"}}
        if entries:
            whether = "" if home is not None else ", unless it is there already (its home is elsewhere)"
            yield Need(f"in {name}'s party.yaml, under `policy:`{whether}", name, entries)
        if job.kind in policy.approve:
            yield Need(f"a person at {name} who approves it: `isthmus approve {name}`", name)


# --- below: the run ---------------------------------------------------------------------------------------------------


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="isthmus-rehearsal-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    if keep.exists() and any(keep.iterdir()):
        raise InputError("rehearsal.folder", where=str(keep))
    yield keep


def _run(job: Job, homes: Path, runs: Path, *, json: bool) -> dict[str, Any]:
    """Run the job as `isthmus run` does; returns its summary."""
    from .running import run_and_show
    from .runs import run_records

    said = io.StringIO()
    with contextlib.redirect_stdout(said) if json else contextlib.nullcontext():
        run_and_show(job, homes=homes, runs=runs, fresh=True, json=json)
    if json:
        return dict(json_module.loads(said.getvalue()))
    record = [record for record in run_records(runs) if record.job_digest == job.digest()][-1]
    return dict(json_module.loads((runs / record.run / "summary.json").read_text("utf-8")))


def _mark(folder: Path, summary: dict[str, Any]) -> Path:
    """Write the report again, as one of a rehearsal."""
    from .report import write_report

    summary["rehearsal"] = BANNER
    return write_report(folder, summary).page
