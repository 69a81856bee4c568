"""`isthmus explain`: one page that a security officer and a lawyer read before they say yes or no to a job.

It is `isthmus check` and more: what leaves, who learns what, what is hidden by which mechanism and from whom, what is
kept, who has signed. Members whose homes are here are asked, and read their own rows to count them; the others are not
asked, nor is anything of theirs read: how many rows they have is what the reader states, or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, IsthmusError
from ..parties.home import PARTY_FILE, PartyHome
from ..parties.policy import Grant, Policy
from ..parties.starts import Start
from .check import Asked, Check, check_job
from .jobs import Job
from .kinds import room
from .kinds.aligned import AlignedJob
from .stands import ADVERSARIES, Kept, Protected, Stand

NO_EPSILON = (
    "none is spent: no differential privacy in this kind of job, so nothing but the policies bounds what many jobs tell"
)
ALL_SEMI_HONEST = "Every protocol below the sealed channels is semi-honest unless it says otherwise."


@dataclass(frozen=True)
class Rules:
    """What one member's own policy says of a job: floors that hold, who may start it, whether a person is waited for.

    Of a member whose home is elsewhere all of it is None.
    """

    at_least: int | None = None
    cohort: int | None = None
    starts: tuple[str, ...] | None = None  # such as "insurer 4/day"
    waits: bool | None = None
    roster: str | None = None  # the consortium of the roster that it has accepted


@dataclass(frozen=True)
class Explanation:
    """All that the page says; `stated` are rows by member that the reader has stated."""

    job: Job
    check: Check
    rules: Mapping[str, Rules]
    stated: Mapping[str, int]
    start: Start | None
    unfinished: IsthmusError | None  # why what the job leaves to be looked up is not known here

    @property
    def pairs(self) -> dict[tuple[str, str], int | None]:
        """Bytes at most from each member to each other, over all topics; None where one of them is not known."""
        found: dict[tuple[str, str], int | None] = {}
        for one in self.check.leaving:
            before = found.get((one.sender, one.receiver), 0)
            known = before is not None and one.nbytes is not None
            found[one.sender, one.receiver] = before + one.nbytes if known else None  # type: ignore[operator]
        return found

    @property
    def total(self) -> int | None:
        """Bytes at most in all."""
        sums = list(self.pairs.values())
        return None if None in sums else sum(one for one in sums if one is not None)

    @property
    def unknown(self) -> str | None:
        """What it takes to tell bytes that are unknown."""
        if all(one.nbytes is not None for one in self.check.leaving):
            return None
        if not isinstance(self.job, AlignedJob):
            return "unknown for a model of one's own, which would have to be run"
        lacking = [one.party for one in self.check.asked if one.rows is None and one.party not in self.stated]
        return "unknown without a row count; state " + " ".join(f"--rows {name}=N" for name in lacking)

    @property
    def learns(self) -> list[tuple[str, str]]:
        """Who learns what: the members, and who only carries or shows things."""
        told = sorted({what for one in self.check.asked for what in one.publishes})
        publish = ", ".join(told) or "nothing of it"
        if any(one.elsewhere for one in self.check.asked):
            publish = "counts, metrics, curves"
        server = ("Prefect", f"the job, states, error codes; published {publish}")
        carried = [("exchange", "who speaks with whom, when, how much; nothing of what is said")]
        readers = ("the coordinator", "who reads the report")
        found: dict[str, list[str]] = {}
        for who, what in [*self.check.learns, *(carried if self.check.leaving else []), server]:
            found.setdefault("the report" if who in readers else who, []).append(what)
        return [(who, what) for who, whats in found.items() for what in whats]

    @property
    def protects(self) -> Sequence[Protected]:
        """What is hidden, by which mechanism."""
        return list(room(self.job.kind, "explain").protects(self.job))

    @property
    def stands(self) -> Sequence[Stand]:
        """How the job stands against each adversary, in the order of docs/security.md."""
        found: list[Stand] = room(self.job.kind, "explain").stands(self.job)
        order = list(ADVERSARIES)
        return sorted(found, key=lambda one: order.index(one.adversaries[0]))

    @property
    def keeps(self) -> Sequence[Kept]:
        """What stays behind, at whom."""
        return list(room(self.job.kind, "explain").keeps(self.job))

    @property
    def signature(self) -> str:
        """Who has signed the job, until when and for how many runs, and whether a roster here bears it out."""
        start, rosters = self.start, [name for name, rules in self.rules.items() if rules.roster]
        if start is None and rosters:
            return f"by nobody: {_and(rosters)} will not start it before `isthmus sign`"
        if start is None and any(rules.starts is not None for rules in self.rules.values()):
            return "by nobody; homes without a roster ask for no signature (a simulation)"
        if start is None:
            return "by nobody: in a consortium nothing starts before `isthmus sign`"
        until = start.until.strftime("%Y-%m-%d %H:%M UTC")
        times = "1 run" if start.runs == 1 else f"{start.runs:,} runs"
        told = f"by {start.by} of {start.consortium}, for {times} until {until}"
        bearing = [one.party for one in self.check.asked if one.party in rosters and one.error is None]
        return f"{told}; " + (f"{_and(bearing)} would start it" if bearing else "no roster here bears it out")


def explain_job(
    job: Job, homes: Path, start: Start | None = None, *, runs: Path, stated: Mapping[str, int] | None = None
) -> Explanation:
    """Ask the members whose homes are here, and put together what is to be said of a job. Nothing leaves.

    `stated` are rows of members whose homes are elsewhere. Raises `InputError` ``job.invalid`` for a number of rows of
    somebody who brings none to this job, and ``home.invalid`` for a party.yaml that cannot be read.
    """
    stated = dict(stated or {})
    for name in stated:
        if name not in job.members or job.terms(name).dataset is None:
            who = _and([one for one in job.members if job.terms(one).dataset])
            problem = f"'{name}' brings no rows to this job: {who} do"
            raise InputError("job.invalid", problem=problem, where="--rows")
    unfinished: IsthmusError | None = None
    try:
        job = job.completed(runs)
    except InputError as failure:  # what it names may be elsewhere
        unfinished = failure
    check = check_job(job, homes, start, apart=True, stated=stated)
    rules = {one.party: _rules(job, homes, one) for one in check.asked}
    return Explanation(job, check, rules, stated, start, unfinished)


def facts(found: Explanation) -> dict[str, Any]:
    """The same for programs, ready for JSON."""
    job, start = found.job, found.start
    signed = {"by", "consortium", "until", "runs"}
    return {
        "job": {"name": job.name, "kind": job.kind, "purpose": job.purpose, "digest": job.digest()},
        "signed": None if start is None else start.model_dump(mode="json", include=signed),
        "signature": found.signature,
        "members": [_member_facts(found, one) for one in found.check.asked],
        "leaving": [
            {"from": one.sender, "to": one.receiver, "topic": one.topic.value, "what": one.what, "bytes": one.nbytes}
            for one in found.check.leaving
        ],
        "pairs": [{"from": sender, "to": to, "bytes": nbytes} for (sender, to), nbytes in found.pairs.items()],
        "bytes": found.total,
        "learns": [{"who": who, "what": what} for who, what in found.learns],
        "privacy": {"epsilon": None, "words": NO_EPSILON, "protects": [one._asdict() for one in found.protects]},
        "adversaries": [
            {**one._asdict(), "who": [ADVERSARIES[letter] for letter in one.adversaries]} for one in found.stands
        ],
        "keeps": [one._asdict() for one in found.keeps],
    }


# --- below: one member ------------------------------------------------------------------------------------------------


def _member_facts(found: Explanation, one: Asked) -> dict[str, Any]:
    rules = found.rules[one.party]
    return {
        "member": one.party,
        "role": one.role,
        "dataset": found.job.terms(one.party).dataset,
        "asked": not one.elsewhere,
        "rows": one.rows,
        "rows_stated": found.stated.get(one.party),
        "columns": None if one.elsewhere else list(one.columns),
        "publishes": None if one.elsewhere else list(one.publishes),
        "at_least": rules.at_least,
        "cohort": rules.cohort,
        "starts": rules.starts,
        "waits_for_a_person": rules.waits,
        "error": one.error.code if one.error else None,
    }


def _rules(job: Job, homes: Path, asked: Asked) -> Rules:
    if asked.elsewhere or not (homes / asked.party / PARTY_FILE).is_file():
        return Rules()
    try:
        home = PartyHome(homes / asked.party)
        consortium = consortium_of(home)
    except IsthmusError:  # the check names it
        return Rules()
    policy, terms = home.config.policy, job.terms(asked.party)
    grant = _granted(policy, job, asked.party)
    return Rules(
        at_least=grant.at_least if grant and terms.at_least is not None else None,
        cohort=grant.cohort if grant and terms.cohort is not None else None,
        starts=tuple(
            f"{name} {rate.count}/{rate.window}"
            for name in sorted(policy.starts)
            if (rate := policy.rate(name, job.kind))
        ),
        waits=job.kind in policy.approve,
        roster=consortium.name if consortium else None,
    )


def _granted(policy: Policy, job: Job, name: str) -> Grant | None:
    try:
        return policy.check(job.terms(name))
    except IsthmusError:
        return None


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
