"""`isthmus check` of a vertical job: what each party's data say, the bytes at most, who would learn what."""

from __future__ import annotations

from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.policy import Grant
from ...check import ENVELOPE_NBYTES, Leaving, Look, proposal_nbytes
from ..aligned_check import SETUP_NBYTES, aligning_nbytes, learning_nbytes, look_at_rows
from .job import LogisticModel, VerticalJob
from .own_data import look_at


def look(home: PartyHome, job: VerticalJob, grant: Grant) -> Look:
    """Read what the job would use of one party."""
    return look_at_rows(home, job, grant, look_at)


def leaving(job: VerticalJob, rows: dict[str, int | None]) -> list[Leaving]:
    """Bytes that would leave each party for another, at most, for parties with so many rows."""
    active, width = job.active.name, 1 if isinstance(job.model, LogisticModel) else job.model.bottom[-1]
    proposal = proposal_nbytes(job)
    found = []
    for passive in (party.name for party in job.passive):
        for sender, receiver in ((active, passive), (passive, active)):
            found.append(Leaving(sender, receiver, Topic.AGREE, "the job itself", proposal))
        up, down = aligning_nbytes(job, rows[active], rows[passive])
        found.append(Leaving(active, passive, Topic.ALIGN, "enciphered linkage keys, a bitmap", up))
        found.append(Leaving(passive, active, Topic.ALIGN, "enciphered linkage keys, a seed", down))
        found.append(Leaving(active, passive, Topic.SETUP, "settings and digests", SETUP_NBYTES))
        found.append(Leaving(passive, active, Topic.SETUP, "the epochs it can go on from", 2 * ENVELOPE_NBYTES))
        forward, backward, scored = learning_nbytes(job.training, rows[active], rows[passive], width)
        found.append(Leaving(passive, active, Topic.TRAIN, f"cut layer, {width} numbers a patient", forward))
        found.append(Leaving(active, passive, Topic.TRAIN, f"gradients, {width} numbers a patient", backward))
        found.append(Leaving(passive, active, Topic.EVALUATE, f"cut layer, {width} numbers a patient", scored))
    return found


def learns(job: VerticalJob) -> list[tuple[str, str]]:
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
