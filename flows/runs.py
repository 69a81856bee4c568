"""The coordinator's record of runs: a folder a run, with what it asked, how it went and its report.

::

    runs/hospital-mortality-1f2e3d4c-1/
      run.json       job, digest, status, attempts
      summary.json   every number of the report
      report.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import filelock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..parties.errors import InputError, IsthmusError, disk_errors
from ..parties.files import write_whole
from .jobs import Job

Status = Literal["unfinished", "finished"]


class RunRecord(BaseModel):
    """The content of `run.json`."""

    model_config = ConfigDict(extra="forbid")

    run: str
    job: dict[str, Any]
    job_digest: str
    status: Status = "unfinished"
    attempts: int = 0
    started: AwareDatetime
    ended: AwareDatetime | None = None
    error: str | None = None
    errors: dict[str, str] = Field(default_factory=dict)  # each member's own, by its code


@dataclass
class OpenRun:
    """A run that this process holds the lock of."""

    folder: Path
    record: RunRecord
    fresh: bool = False  # it starts over

    @property
    def name(self) -> str:
        """The run's id."""
        return self.record.run

    def save(
        self, status: Status, error: IsthmusError | None = None, errors: Mapping[str, IsthmusError] | None = None
    ) -> None:
        """Write `run.json`, whole or not at all."""
        self.record.status = status
        self.record.ended = datetime.now(UTC)
        self.record.error = error.code if error else None
        self.record.errors = {member: each.code for member, each in (errors or {}).items()}
        _write(self.folder, self.record)


def run_records(root: Path) -> list[RunRecord]:
    """All runs below a folder, oldest first."""
    found = []
    for path in root.glob("*/run.json"):
        try:
            record = RunRecord.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # somebody else's folder
        if record.run == path.parent.name:
            found.append(record)
    return sorted(found, key=lambda record: record.started)


def find_run(root: Path, run: str) -> Path:
    """The folder of a run; raises `InputError` ``run.unknown``."""
    if not any(record.run == run for record in run_records(root)):
        raise InputError("run.unknown", run=run)
    return root / run


@contextmanager
def open_run(root: Path, job: Job, *, fresh: bool = False) -> Iterator[OpenRun]:
    """Begin a run of a job, or another attempt at the last one if that did not end.

    Raises `InputError` ``run.active`` while another process holds that run.
    """
    digest = job.digest()
    mine = [record for record in run_records(root) if record.job_digest == digest]
    if mine and mine[-1].status == "unfinished" and not fresh:
        record = mine[-1]
    else:
        prefix = f"{job.name}-{digest[:8]}"
        taken = [int(found[1]) for path in root.glob(f"{prefix}-*") if (found := re.search(r"-(\d+)$", path.name))]
        name = f"{prefix}-{max(taken, default=0) + 1}"
        record = RunRecord(run=name, job=job.canonical(), job_digest=digest, started=datetime.now(UTC))
    folder = root / record.run
    lock = filelock.FileLock(folder / "lock")
    with disk_errors("the coordinator"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as failure:
            raise InputError("run.active") from failure
    try:
        record.attempts += 1
        _write(folder, record)
        yield OpenRun(folder, record, fresh)
    finally:
        lock.release()


def _write(folder: Path, record: RunRecord) -> None:
    content = json.dumps(record.model_dump(mode="json"), indent=2).encode()
    write_whole(folder / "run.json", content, party="the coordinator")
