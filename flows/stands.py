"""Who may be against a job, and how a job stands against each: the form and the common words of every explanation.

The adversaries and what they can do all the same are those of docs/security.md, word for word: a test compares them.
What is particular to one kind of job comes from its room `explain` (see `kinds`).
"""

from __future__ import annotations

from typing import NamedTuple

from .phases import KEPT_RUNS

ADVERSARIES = {
    "N": "who reads or alters the network",
    "E": "who runs the exchange, or has its key and memory",
    "S": "who runs the Prefect server",
    "O": "outsider without a key of the roster",
    "M": "member that deviates: forges, replays, floods, lies in protocols",
    "C": "curious member that keeps to the protocols",
    "L": "another user of a member's machine",
}


class Stand(NamedTuple):
    """How a job stands against adversaries, named by their letters: what holds, and what they can do all the same."""

    adversaries: str
    holds: str
    but: str


class Protected(NamedTuple):
    """Something that is to be hidden, and the mechanism that hides it; or that none does."""

    what: str
    by: str


class Kept(NamedTuple):
    """What stays behind after a run: at whom, what, and where below the home (or the folder of runs)."""

    who: str
    what: str
    where: str


def outside(*, patients: bool) -> list[Stand]:
    """Against those who are no members, of a job whose members speak to each other.

    `patients`: whether the sizes of messages follow the number of patients.
    """
    counts = "; how many patients there are and how many are shared" if patients else ""
    return [
        Stand(
            "N",
            "the vaults' seal: reads nothing, alters nothing unnoticed",
            "stop traffic; see addresses, times, sizes",
        ),
        Stand(
            "E",
            "sealed",
            "stop, delay, drop; see which member speaks with which" + counts,
        ),
        Stand("O", "no stream", "connect to the port"),
        *here(),
    ]


def here() -> list[Stand]:
    """Against those who run what is around a vault."""
    return [
        Stand(
            "S",
            "gets no row and no key; with a roster, starts nothing that no member signed",
            "withhold runs; show members different jobs; see what policies publish",
        ),
        Stand("L", "homes are 0700", "see that jobs run"),
    ]


def kept_by_parties(parties: str, *more: Kept) -> list[Kept]:
    """What every party keeps of a run, and whoever started it; `more` are what the kind adds."""
    return [
        *more,
        Kept(parties, f"log; checkpoints, of the {KEPT_RUNS} newest finished runs", "runs/RUN/"),
        Kept("each member", "the ledger of what it sent; runs and their digests", "state.duckdb"),
        Kept("who runs it", "the report: what the policies publish", "the folder of runs"),
    ]
