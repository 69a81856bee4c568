"""`isthmus check` of a finetune job: what the party's data and its model say. Nothing would leave."""

from __future__ import annotations

from ....parties.errors import InputError, IsthmusError
from ....parties.home import PartyHome
from ....parties.policy import Grant
from ...check import Leaving, Look
from .job import FinetuneJob


def look(home: PartyHome, job: FinetuneJob, grant: Grant) -> Look:
    """Find the model, and read what the job would use beside it."""
    from .own_data import read_columns, read_rows, split_of  # with torch

    rows: int | None = None
    differences: tuple[tuple[str, str], ...] = ()
    try:
        own = read_columns(home, job)
        rows, differences = len(own.row_ids), tuple((one.column, one.what) for one in own.differences)
        if differences:
            raise InputError("schema.differs", count=1)
        rule, _ = split_of(job, own.start)
        read_rows(own, job, rule)
    except IsthmusError as error:
        return Look(rows, error, differences)
    return Look(rows)


def leaving(job: FinetuneJob, rows: dict[str, int | None]) -> list[Leaving]:
    """Nothing: there is nobody to send to."""
    return []


def learns(job: FinetuneJob) -> list[tuple[str, str]]:
    """Pairs of somebody and something they learn, for a person to read."""
    party = job.party.name
    return [
        (
            party,
            "nothing that its home does not hold already: what can be read out of the starting model's weights, the "
            "means and scales of its columns and its levels",
        ),
        ("who trained the starting model", "nothing of this: neither that it was tuned, nor how"),
        (
            "who reads the report",
            f"what {party}'s policy publishes: how many rows it has, how well each of the three models does on "
            "validation and held-out patients, which one is kept; never of fewer patients than its floor",
        ),
    ]
