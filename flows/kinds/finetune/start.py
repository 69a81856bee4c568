"""Which model a finetune job starts from, where it names the job that made it: looked up among the coordinator's runs.

The digest is part of what the party is asked to agree to, so it is filled in before a run is opened. What is read are
public facts of a report, `summary.json`; the file itself is in the party's home, where only its vault looks for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from ....parties.errors import InputError
from ...jobs import Job
from ...runs import run_records
from .job import FinetuneJob

J = TypeVar("J", bound=Job)


def with_start(job: J, runs: Path) -> J:
    """The job with the digest of its start, out of the newest finished run of the job that it names; any other job as
    it is. `runs` is the folder of runs.

    Raises `InputError` ``start.unknown`` where no such run has a model of the party.
    """
    if not isinstance(job, FinetuneJob) or job.start.digest is not None:
        return job
    for record in reversed(run_records(runs)):
        if record.status == "finished" and record.job.get("name") == job.start.job:
            digest = _model_of(runs / record.run, job.party.name)
            if digest is not None:
                content = job.canonical()
                return type(job).model_validate({**content, "start": {**content["start"], "digest": digest}})
    raise InputError("start.unknown", name=str(job.start.job))


def _model_of(folder: Path, party: str) -> str | None:
    """The digest of a party's model of one run; None where its summary is gone or names none."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return str(summary["digests"]["models"][party])
    except (OSError, ValueError, LookupError, TypeError):
        return None
