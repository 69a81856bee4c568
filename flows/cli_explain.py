"""`isthmus explain`, `describe` and `rehearse`: what people do before a run, when the other homes are elsewhere."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from ..parties.errors import InputError
from .options import Flag, Homes, Json, Runs
from .terminal import console, named_home


def explain(
    job: Path,
    *,
    homes: Homes = Path("homes"),
    runs: Runs = Path("runs"),
    rows: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    html: Path | None = None,
    json: Json = False,
) -> None:
    """One page before a run: what leaves, who learns what, what hides it from whom, what is kept. Nothing leaves.

    For a security officer and a lawyer. Members whose homes are here are asked, as `isthmus check` does; the others are
    not, and it also works with no home at all.

    Example: isthmus explain job.yaml --rows lab=3500 --rows insurer=4000 --html job.html

    Parameters
    ----------
    job
        The job file, signed or not.
    rows
        How many rows a member brings whose home is not here, as MEMBER=COUNT: what leaves depends on it.
    html
        Write the page here as well, as one HTML file.
    """
    from .explain import explain_job, facts
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    found = explain_job(loaded, homes, start, runs=runs, stated=_counts(rows))
    if html is not None:
        from ..parties.files import write_whole
        from .explain_page import html_page

        write_whole(html, html_page(found).encode())
    if json:
        sys.stdout.write(json_module.dumps(facts(found)) + "\n")
        return
    from .explain_page import text_page

    console.print(text_page(found), end="", soft_wrap=True, markup=False)


def describe(
    party: str,
    *,
    homes: Homes = Path("homes"),
    out: Path | None = None,
    with_rows: Flag = False,
    with_categories: Flag = False,
    json: Json = False,
) -> None:
    """Write down what a party's datasets look like, to hand over for a rehearsal: names and types, no row, no value.

    It holds what the policy releases and nothing else. The file is printed: read it before you hand it over.

    Example: isthmus describe lab

    Parameters
    ----------
    party
        The party whose home is here.
    out
        Where the file is written; PARTY.schema.yaml if not named.
    with_rows
        Also say how many rows there are, rounded up to a power of ten.
    with_categories
        Also name the levels of categories that at least as many rows have as the policy's floors say.
    """
    from ..parties.files import write_whole
    from ..parties.home import PartyHome
    from .schema_of import SUFFIX, schema_text
    from .schema_of import describe as shapes_of

    schema = shapes_of(PartyHome(named_home(homes, party)), rows=with_rows, levels=with_categories)
    file = out or Path(f"{party}{SUFFIX}")
    text = schema_text(schema)
    write_whole(file, text.encode(), party=party)
    if json:
        sys.stdout.write(json_module.dumps({"file": str(file), **schema.model_dump(mode="json")}) + "\n")
        return
    console.print(
        text.rstrip(),
        "",
        f"file  {file}: this is all that it holds; hand it over to whoever rehearses",
        sep="\n",
        soft_wrap=True,
        markup=False,
    )


def rehearse(
    job: Path,
    *,
    homes: Homes = Path("homes"),
    schemas: Path | None = None,
    rows: Annotated[int | None, Parameter(validator=Number(gte=20, lte=100_000))] = None,
    overlap: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 0.6,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 1,
    keep: Path | None = None,
    runs: Annotated[
        Path, Parameter(name="--runs", help="Folder for the reports of rehearsals.", show_default=True)
    ] = Path("rehearsals"),
    finished: Annotated[
        Path, Parameter(name="--finished", env_var="ISTHMUS_RUNS", help="Folder with the finished real runs.")
    ] = Path("runs"),
    json: Json = False,
) -> None:
    """The whole job on synthetic rows, every party a process on this machine; then what a real run still needs.

    What rows look like comes from the schema file of each party, which `isthmus describe` writes there, or from its
    home here, of which column types are read and no row. The numbers of a rehearsal mean nothing.

    Example: isthmus rehearse job.yaml --schemas schemas

    Parameters
    ----------
    job
        The job file, signed or not.
    schemas
        Folder with PARTY.schema.yaml for the parties whose homes are elsewhere; such a file comes before a home.
    rows
        Synthetic rows a party; 500, or as many as the job's floors take.
    overlap
        The share of them that are about persons whom all parties know.
    seed
        Draws other rows.
    keep
        An empty folder to leave the synthetic homes in.
    """
    from .rehearsal import plan, rehearse_and_show
    from .signed import read_job_file

    loaded, start = read_job_file(job)
    found = plan(loaded, homes, schemas=schemas, rows=rows, overlap=overlap, start=start, runs=finished)
    rehearse_and_show(found, runs=runs, keep=keep, overlap=overlap, seed=seed, json=json)


def _counts(words: Sequence[str]) -> dict[str, int]:
    """`lab=3500` → lab: 3500."""
    found = {}
    for word in words:
        name, _, count = word.partition("=")
        if not count.isdecimal() or not 1 <= len(count) <= 12 or int(count) == 0:
            raise InputError("job.invalid", problem=f"'{word}' is not MEMBER=COUNT", where="--rows")
        found[name] = int(count)
    return found
