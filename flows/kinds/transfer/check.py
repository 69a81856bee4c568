"""`isthmus check` of a transfer job: what each party's data say, the bytes at most, who would learn what.

"At most" holds for a pretraining of up to about half an hour: while it works, the source says so every 20 s, and how
long it takes is not known beforehand. Each such word more takes `ENVELOPE_NBYTES`.
"""

from __future__ import annotations

from math import ceil

from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.policy import Grant
from ...check import ENVELOPE_NBYTES, Leaving, Look, proposal_nbytes
from ..aligned_check import SETUP_NBYTES, aligning_nbytes, learning_nbytes, look_at_rows, scoring_nbytes
from .job import TransferJob
from .own_data import look_at

_BEATS = 100  # of the source's "still working"


def look(home: PartyHome, job: TransferJob, grant: Grant) -> Look:
    """Read what the job would use of one party."""
    return look_at_rows(home, job, grant, look_at)


def leaving(job: TransferJob, rows: dict[str, int | None]) -> list[Leaving]:
    """Bytes that would leave each party for the other, at most, for parties with so many rows."""
    source, target = job.source.name, job.target.name
    mine, theirs = rows[target], rows[source]
    proposal = proposal_nbytes(job)
    found = [Leaving(*way, Topic.AGREE, "the job itself", proposal) for way in ((source, target), (target, source))]
    up, down = aligning_nbytes(job, mine, theirs)
    found.append(Leaving(target, source, Topic.ALIGN, "enciphered linkage keys, a bitmap", up))
    found.append(Leaving(source, target, Topic.ALIGN, "enciphered linkage keys, a seed", down))
    shared = None if mine is None or theirs is None else min(mine, theirs)
    given = None if shared is None else scoring_nbytes(shared, job.width) + _BEATS * ENVELOPE_NBYTES
    what = "a score of each shared patient" if job.width == 1 else f"an embedding, {job.width} numbers a patient"
    found.append(Leaving(source, target, Topic.TRAIN, what, given))
    found.append(Leaving(target, source, Topic.TRAIN, "whether both train on", 2 * ENVELOPE_NBYTES))
    if shared is not None and given is not None and job.split.at_least is not None and shared >= job.split.at_least:
        del found[-2:]
        found += _tuning(job, shared, given, what)
    return found


def _tuning(job: TransferJob, shared: int, given: int, what: str) -> list[Leaving]:
    """What leaves where both train on after the embedding was given."""
    source, target, width = job.source.name, job.target.name, job.pretraining.width
    forward, backward, _ = learning_nbytes(job.split, shared, shared, width)
    assert forward is not None and backward is not None
    shares = (job.split.validation_share, job.split.test_share)
    held_out = sum(scoring_nbytes(ceil(shared * share), width) for share in shares)
    cut = f"cut layer, {width} numbers a patient"
    return [
        Leaving(source, target, Topic.TRAIN, f"{what}; {cut}", given + forward),
        Leaving(target, source, Topic.TRAIN, f"gradients, {width} numbers a patient", backward + 2 * ENVELOPE_NBYTES),
        Leaving(target, source, Topic.SETUP, "settings and digests", SETUP_NBYTES),
        Leaving(source, target, Topic.SETUP, "the epochs it can go on from", 2 * ENVELOPE_NBYTES),
        Leaving(source, target, Topic.EVALUATE, cut, held_out),
    ]


def learns(job: TransferJob) -> list[tuple[str, str]]:
    """Pairs of a party and something it learns, for a person to read."""
    source, target = job.source.name, job.target.name
    lines = [
        (target, f"which of its patients {source} has too, and how many keys {source} has"),
        (source, f"which of its patients {target} has too, and how many keys {target} has"),
    ]
    if job.width == 1:
        told = f"one number of each shared patient: what {source}'s model makes of the columns that it has of them"
    else:
        told = (
            f"{job.width} numbers of each shared patient, made from {source}'s columns, which can be guessed from them"
        )
    lines.append((target, told))
    if job.pretraining.how == "supervised":
        own = (
            f"out of fold: {source}'s own label of a patient did not go into that patient's numbers, but comparing "
            "those of patients alike, or of several jobs, can still tell it"
        )
        lines.append((target, own))
    lines.append((target, f"nothing of {source}'s other patients but what such a model has learnt from all of them"))
    if job.split.at_least is None:
        if job.target.label is not None:
            lines.append((source, f"whether {target} knows too few of their outcomes, at which the job stops"))
        lines.append((source, f"nothing else of {target}'s columns, labels or results"))
    else:
        least, of_own = job.split.at_least, ""
        if job.pretraining.how == "supervised":
            of_own = f": no longer out of fold, so those of a patient trained on carry {source}'s own label as well"
        lines += [
            (source, f"from {least:,} shared patients with an outcome on: that there are so many"),
            (source, f"then gradients, from which {target}'s label of every patient trained on can be guessed"),
            (target, f"then {job.pretraining.width} numbers of each shared patient anew in every epoch{of_own}"),
        ]
    lines.append(("the coordinator", "what the policies publish, and nothing of a row"))
    return lines
