"""Job files that carry a signature: the job, complete, and the `Start` of the member who signed it.

::

    job:
      kind: vertical
      ...
    start:
      by: insurer
      until: 2026-03-08T12:00:00Z
      ...

A file without these two keys is a plain job. What a signature is worth is each vault's to judge
(`parties.starts.judge_start`); here only a file is told whose job was changed after it was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..parties.consortium import consortium_of
from ..parties.errors import InputError, PolicyRefusal, plain_problem
from ..parties.events import Signed
from ..parties.files import write_whole
from ..parties.home import PartyHome
from ..parties.identity import Identity
from ..parties.pause import refuse_paused
from ..parties.starts import Start, sign_start
from ..parties.strict_yaml import yaml_text
from .jobs import Job, _kind_of, _validated, _yaml

_KEYS = {"job", "start"}


def read_job_file(path: Path) -> tuple[Job, Start | None]:
    """A job of any kind and, if the file carries one, its start.

    Raises `InputError` as `jobs.load_job` does, and ``job.signature`` for a start that is of another job.
    """
    job, start = parse_job_file(path)
    if start is not None and (start.job, start.kind) != (job.digest(), job.kind):
        raise InputError("job.signature", peer=start.by, where=path.name)
    return job, start


def parse_job_file(path: Path) -> tuple[Job, Start | None]:
    """As `read_job_file`, whether or not the start is of this job: for whoever signs it anew."""
    content = _yaml(path)
    if not isinstance(content, Mapping) or set(content) != _KEYS:
        return _job(content, path), None
    return _job(content["job"], path), _start(content["start"], path)


def write_signed(path: Path, job: Job, start: Start) -> None:
    """Write a job and its start, whole or not at all. Raises `InputError` ``disk.full`` and ``disk.denied``."""
    content = {"job": job.canonical(), "start": start.model_dump(mode="json")}
    heading = "# Signed: a change to the job takes a new signature, by `isthmus sign`.\n"
    write_whole(path, (heading + yaml_text(content)).encode())


def sign_job(job: Job, home: PartyHome, *, folder: Path, days: int, runs: int) -> tuple[Job, Start]:
    """Sign a job as the member that a home is of, for so many runs within so many days from now.

    Returns the job with what it left to be looked up among the finished runs in `folder`: that is what was signed.
    Raises `InputError` ``roster.not_pinned`` for a home without a consortium, and what `Job.completed` and
    `consortium_of` raise.
    """
    consortium = consortium_of(home)
    if consortium is None:
        raise InputError("roster.not_pinned", party=home.name)
    complete = job.completed(folder)
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    identity = Identity(home)
    if identity.public != consortium.key_of(home.name):
        raise InputError("roster.key_differs", party=home.name, field="identity key")
    return complete, sign_start(identity, consortium.name, complete.digest(), complete.kind, until=until, runs=runs)


def sign_for_flow(job: Job, home: PartyHome) -> Signed:
    """One run of a job signed for a day, as the member that a home is of lets its own flow have it.

    Raises `PolicyRefusal` ``policy.signs``, ``policy.paused``, and what `sign_job` raises.
    """
    refuse_paused(home.folder, party=home.name)
    if job.kind not in home.config.policy.signs:
        raise PolicyRefusal("policy.signs", party=home.name, kind=job.kind)
    _, start = sign_job(job, home, folder=home.folder / "runs", days=1, runs=1)
    return Signed(until=int(start.until.timestamp()), nonce=start.nonce, signature=start.signature)


def _job(content: Any, path: Path) -> Job:
    return _validated(_kind_of(content, path.name), content, path)


def _start(content: Any, path: Path) -> Start:
    try:
        return Start.model_validate(content)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        where = ", ".join((path.name, ".".join(("start", *map(str, first["loc"])))))
        raise InputError("job.invalid", problem=plain_problem(first), where=where) from failure
