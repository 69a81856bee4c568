"""`isthmus check`: what a job would do, said before anything leaves.

Every party whose home is on this machine is asked: its policy judges the terms, its store reads what the job would use
and finds what is wrong with it. No vault starts, no ledger row is written, no channel is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from ..parties.errors import IsthmusError
from ..parties.home import PartyHome, find_home
from ..parties.network.message import Topic
from ..parties.store import Store
from .jobs import LogisticModel, VerticalJob
from .own_data import look_at

POINT_NBYTES, CUT_POINT_NBYTES, INDEX_NBYTES, SEED_NBYTES, LEAF_NBYTES, FLOAT_NBYTES = 33, 16, 4, 32, 66, 4
CHUNK_ROWS = 4096  # in a message, of points and of rows to score; not imported, since that would load torch
ENVELOPE_NBYTES = 128  # what a message takes beside its values: header and padding
SETUP_NBYTES = 2048


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


@dataclass(frozen=True)
class Leaving:
    """Bytes that would leave one party for another, at most."""

    sender: str
    receiver: str
    topic: Topic
    what: str
    nbytes: int | None  # None where a row count is not known here


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
        return min(errors, key=lambda error: error.code != "job.party_unknown", default=None)


def check_job(job: VerticalJob, homes: Path) -> Check:
    """Ask every party that has a home here what it would say to a job."""
    asked = tuple(_ask(job, homes, party.name) for party in job.parties)
    rows = {answer.party: answer.rows for answer in asked}
    return Check(asked, tuple(_leaving(job, rows)), tuple(who_learns_what(job)))


def _ask(job: VerticalJob, homes: Path, name: str) -> Asked:
    role = "active" if name == job.active.name else "passive"
    rows: int | None = None
    floor: int | None = None
    columns: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    try:
        home = PartyHome(find_home(homes, name))
        publishes = home.config.policy.publish
        grant = home.config.policy.check(job.terms(name))
        columns, floor = grant.columns, grant.at_least
        store = Store(home, job.party(name).dataset)
        row_ids = store.row_ids()
        rows = len(row_ids)
        look_at(store, job, name, columns, row_ids)
    except IsthmusError as error:
        return Asked(name, role, rows, columns, floor, error, publishes)
    return Asked(name, role, rows, columns, floor, None, publishes)


def _leaving(job: VerticalJob, rows: dict[str, int | None]) -> list[Leaving]:
    active, width = job.active.name, 1 if isinstance(job.model, LogisticModel) else job.model.bottom[-1]
    proposal = len(json.dumps(job.canonical())) + 2 * ENVELOPE_NBYTES
    found = []
    for passive in (party.name for party in job.passive):
        for sender, receiver in ((active, passive), (passive, active)):
            found.append(Leaving(sender, receiver, Topic.AGREE, "the job itself", proposal))
        up, down = _aligning(job, rows[active], rows[passive])
        found.append(Leaving(active, passive, Topic.ALIGN, "enciphered linkage keys, a bitmap", up))
        found.append(Leaving(passive, active, Topic.ALIGN, "enciphered linkage keys, a seed", down))
        found.append(Leaving(active, passive, Topic.SETUP, "settings and digests", SETUP_NBYTES))
        found.append(Leaving(passive, active, Topic.SETUP, "the epochs it can go on from", 2 * ENVELOPE_NBYTES))
        forward, backward, scored = _learning(job, rows[active], rows[passive], width)
        found.append(Leaving(passive, active, Topic.TRAIN, f"cut layer, {width} numbers a patient", forward))
        found.append(Leaving(active, passive, Topic.TRAIN, f"gradients, {width} numbers a patient", backward))
        found.append(Leaving(passive, active, Topic.EVALUATE, f"cut layer, {width} numbers a patient", scored))
    return found


def _aligning(job: VerticalJob, mine: int | None, theirs: int | None) -> tuple[int | None, int | None]:
    """Bytes of `psi.star` from the active party to a passive one, and back."""
    if mine is None or theirs is None:
        return None, None
    passes, shared = len(job.align.passes), min(mine, theirs)
    up = POINT_NBYTES * mine + theirs // 8 + 1 + INDEX_NBYTES * shared
    down = POINT_NBYTES * theirs + CUT_POINT_NBYTES * mine + SEED_NBYTES
    common = INDEX_NBYTES * shared + LEAF_NBYTES * len(job.passive)
    messages = 6 + mine // CHUNK_ROWS + theirs // CHUNK_ROWS  # a pass
    return (
        passes * (up + messages * ENVELOPE_NBYTES) + common + 6 * ENVELOPE_NBYTES,
        passes * (down + messages * ENVELOPE_NBYTES) + 6 * ENVELOPE_NBYTES,
    )


def _learning(
    job: VerticalJob, mine: int | None, theirs: int | None, width: int
) -> tuple[int | None, int | None, int | None]:
    """Bytes of `vertical.split`: cut layers and gradients in training, cut layers of the held-out patients."""
    if mine is None or theirs is None:
        return None, None, None
    training, shared, row_nbytes = job.training, min(mine, theirs), width * FLOAT_NBYTES
    validation, test = (ceil(shared * share) for share in (training.validation_share, training.test_share))
    train = ceil(shared * (1 - training.validation_share - training.test_share)) + 1  # parts are rounded
    batches = 1 + train // training.batch_size
    backward = training.epochs * (train * row_nbytes + (batches + 1) * ENVELOPE_NBYTES)
    validating = validation * row_nbytes + (1 + validation // CHUNK_ROWS) * ENVELOPE_NBYTES
    return (
        backward + training.epochs * validating,
        backward,
        test * row_nbytes + (1 + test // CHUNK_ROWS) * ENVELOPE_NBYTES,
    )


def who_learns_what(job: VerticalJob) -> list[tuple[str, str]]:
    """Pairs of a party and something it learns, for a person to read."""
    active, passive = job.active.name, [party.name for party in job.passive]
    them = " and ".join(passive)
    lines = [
        (
            active,
            f"which of its patients {them} {'has' if len(passive) == 1 else 'have'} too, and how many keys each has",
        ),
        (
            active,
            f"the cut layer of {them} for every shared patient: numbers made from their columns, from which those "
            "can be guessed, and a single one all but read",
        ),
        (active, "a score for every shared patient"),
    ]
    logistic = isinstance(job.model, LogisticModel)
    for name in passive:
        lines.append((name, f"which of its patients {active} has too, and how many keys {active} has"))
        if len(passive) > 1:
            lines.append((name, "which of these all other parties have too"))
        told = "whose sign is" if logistic else "from which can be guessed"
        lines.append((name, f"gradients, {told} {active}'s label of every patient trained on"))
    lines.append(("the coordinator", "what the policies publish, and nothing of a row"))
    return lines
