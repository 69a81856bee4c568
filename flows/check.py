"""`isthmus check`: what a job would do, said before anything leaves.

Every party whose home is on this machine is asked: its policy judges the terms, its store reads what the job would use
and finds what is wrong with it. No vault starts, no ledger row is written, no channel is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, IsthmusError, PolicyRefusal
from ..parties.home import PARTY_FILE, PIN_FILE, PartyHome, find_home
from ..parties.network.message import Topic
from ..parties.pause import refuse_paused
from ..parties.starts import CLOCKS_DIFFER, Start, check_start
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
    elsewhere: bool = False  # its home is on another machine, so nobody has been asked


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


def check_job(
    job: Job,
    homes: Path,
    start: Start | None = None,
    *,
    apart: bool = False,
    stated: Mapping[str, int] | None = None,
) -> Check:
    """Ask every member that has a home here what it would say to a job, and in a consortium to who has signed it.

    Members of a consortium have their homes elsewhere, and are not asked; without one, a home that is missing is a
    mistake, unless homes are known to be `apart`. `stated` are rows of members that no home here tells of.
    """
    kind = room(job.kind, "check")
    here = [member for member in job.members if (homes / member / PARTY_FILE).is_file()]
    apart = apart or any((homes / member / PIN_FILE).is_file() for member in here)
    asked = tuple(
        _ask(job, homes, member, start)
        if member in here or not apart
        else Asked(member, job.role(member), None, (), None, None, (), elsewhere=True)
        for member in job.members
    )
    rows = {one.party: (stated or {}).get(one.party) if one.rows is None else one.rows for one in asked}
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
        refuse_paused(home.folder, party=name)
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
    """Whether the roster and the policy let the member meet its peers for whoever has signed the job, if anybody has.

    How often it was started, and whether a person has approved it, is for the start itself to find out.
    """
    consortium = consortium_of(home)
    if consortium is None:
        return
    consortium.check_self(home)
    for link in job.links:
        if home.name in link:
            (peer,) = set(link) - {home.name}
            consortium.key_of(peer)
    if start is None:
        return
    check_start(
        start,
        policy=home.config.policy,
        party=home.name,
        consortium=consortium.name,
        key_of=consortium.key_of,
        kind=job.kind,
        job_digest=job.digest(),
    )
    if (over := datetime.now(UTC) - start.until) > CLOCKS_DIFFER:
        raise PolicyRefusal("policy.start_expired", party=home.name, seconds=int(over.total_seconds()))


def proposal_nbytes(job: Job) -> int:
    """What the message takes in which a member says which job it was given."""
    return len(json.dumps(job.canonical())) + 2 * ENVELOPE_NBYTES
