"""What `isthmus explain` says of a finetune job beside who learns what: nothing leaves."""

from __future__ import annotations

from ...stands import Kept, Protected, Stand, here, kept_by_parties
from .job import FinetuneJob


def protects(job: FinetuneJob) -> list[Protected]:
    """What is hidden, and by which mechanism."""
    return [
        Protected("rows", "nothing leaves: there is no peer to send to"),
        Protected("floors", f"no number about fewer patients than {job.party.name}'s cohort is published"),
    ]


def stands(job: FinetuneJob) -> list[Stand]:
    """How the job stands against each adversary."""
    server, machine = here()
    outcome = "work out one patient's outcome from two jobs that differ by that held-out patient"
    return [
        Stand("NEOC", "nothing is sent, so there is nothing to read, alter or work out", ""),
        Stand(
            "M",
            "a starting model is data, never code, and is kept only if it does no harm on validation rows",
            "make one that does well on these rows and not on others",
        ),
        server._replace(but=f"{server.but}; {outcome}"),
        machine,
    ]


def keeps(job: FinetuneJob) -> list[Kept]:
    """What stays behind after a run."""
    party = job.party.name
    return kept_by_parties(party, Kept(party, "the model that the gate keeps", "models/RUN/"))
