"""Which model a finetune job starts from, where it names the job that made it: looked up among the coordinator's runs.

What is read are public facts of a report, `summary.json`; the file itself is in the party's home, where only its vault
looks for it.
"""

from __future__ import annotations

import json
from pathlib import Path

from ....parties.errors import InputError
from ...runs import run_records

TRAININGS = ("horizontal", "finetune")  # the kinds of job that write such a model


def newest_model(runs: Path, job: str, party: str) -> str:
    """The digest of a party's model of the newest finished run of the training with this name, below `runs`.

    Raises `InputError` ``start.unknown`` where no such run has a model of the party.
    """
    for record in reversed(run_records(runs)):
        if record.status != "finished" or record.job.get("name") != job or record.job.get("kind") not in TRAININGS:
            continue
        if (digest := _model_of(runs / record.run, party)) is not None:
            return digest
    raise InputError("start.unknown", name=job)


def _model_of(folder: Path, party: str) -> str | None:
    """The digest of a party's model of one run; None where its summary is gone or names none."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return str(summary["digests"]["models"][party])
    except (OSError, ValueError, LookupError, TypeError):
        return None
