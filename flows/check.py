"""`isthmus check`: what a job would do, said before anything leaves.

Every party whose home is on this machine is asked: its policy judges the terms, its store reads what the job would use
and finds what is wrong with it. No vault starts, no ledger row is written, no channel is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, IsthmusError
from ..parties.home import PartyHome, find_home
from ..parties.network.message import Topic
from ..parties.starts import Start, check_start
from .jobs import Job
from .kinds import room

ENVELOPE_NBYTES = 128  # what a message takes beside its values: header and padding


@dataclass(frozen=True)
class Asked:
    """What one party's policy and store say to the job."""

    party: str
    role: str
    rows: int | None
    columns: tuple[str, ...]
    floor: int | None
    error: IsthmusError | None
    publishes: tuple[str, ...]
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Leaving:
    """Bytes that would leave one party for another, at most."""

    sender: str
    receiver: str
    topic: Topic
    what: str
    nbytes: int | None  # None where a row count is not known here


@dataclass(frozen=True)
class Look:
    """What a look at a member's own data found.

    `differences` are those from the job's columns: a column, and what differs (`parties.events.Difference`).
    """

    rows: int | None = None
    problem: IsthmusError | None = None
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Check:
    """The dry run of a job."""

    asked: tuple[Asked, ...]
    leaving: tuple[Leaving, ...]
    learns: tuple[tuple[str, str], ...]

    @property
    def error(self) -> IsthmusError | None:
        """The first thing that would stop the job: a home that is not there comes before what a party says."""
        errors = [asked.error for asked in self.asked if asked.error]
        first = min(errors, key=lambda error: error.code != "job.party_unknown", default=None)
        if first is not None and first.code == "schema.differs":
            return InputError("schema.differs", count=sum(bool(asked.differences) for asked in self.asked))
        return first


def check_job(job: Job, homes: Path, start: Start | None = None) -> Check:
    """Ask every member that has a home here what it would say to a job, and in a consortium to who has signed it."""
    kind = room(job.kind, "check")
    asked = tuple(_ask(job, homes, member, start) for member in job.members)
    rows = {answer.party: answer.rows for answer in asked}
    return Check(asked, tuple(kind.leaving(job, rows)), tuple(kind.learns(job)))


def _ask(job: Job, homes: Path, name: str, start: Start | None) -> Asked:
    floor: int | None = None
    columns: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    look = Look()
    error: IsthmusError | None = None
    try:
        home = PartyHome(find_home(homes, name))
        publishes = home.config.policy.publish
        grant = home.config.policy.check(job.terms(name))
        columns = grant.columns
        _check_consortium(home, job, start)
        floor = grant.at_least if job.terms(name).at_least is not None else grant.cohort
        look = room(job.kind, "check").look(home, job, grant)
        error = look.problem
    except IsthmusError as failure:
        error = failure
    return Asked(name, job.role(name), look.rows, columns, floor, error, publishes, look.differences)


def _check_consortium(home: PartyHome, job: Job, start: Start | None) -> None:
    """Whether the roster and the policy let the member meet its peers for whoever has signed the job."""
    consortium = consortium_of(home)
    if consortium is None:
        return
    consortium.check_self(home)
    for link in job.links:
        if home.name in link:
            (peer,) = set(link) - {home.name}
            consortium.key_of(peer)
    check_start(
        start,
        policy=home.config.policy,
        party=home.name,
        consortium=consortium.name,
        key_of=consortium.key_of,
        kind=job.kind,
        job_digest=job.digest(),
    )


def proposal_nbytes(job: Job) -> int:
    """What the message takes in which a member says which job it was given."""
    return len(json.dumps(job.canonical())) + 2 * ENVELOPE_NBYTES
