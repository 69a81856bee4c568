"""What every job is: what a YAML file holds, what the Prefect UI shows as a form, what the parties agree on.

A job names things (parties, datasets, columns) and public hyperparameters. It holds no row, no path, no SQL and no
secret, so it may be stored by a Prefect server. The kinds of job are in `kinds`; `load_job` reads one of any kind.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..parties.errors import InputError, plain_problem
from ..parties.events import Phase
from ..parties.home import NAME_PATTERN
from ..parties.policy import Terms
from ..parties.strict_yaml import MOST_NBYTES, BoundedLoader
from .kinds import KINDS, room

PROTOCOL_VERSION = 3

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Width = Annotated[int, Field(ge=1, le=4096)]
J = TypeVar("J", bound="Job")


class Form(BaseModel):
    """A part of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Job(Form):
    """What the kinds of job have in common. The fields come first in each kind's own model, with its `kind`."""

    phases: ClassVar[tuple[Phase, ...]]
    units: ClassVar[Mapping[Phase, str]]  # what the progress of a phase is counted in, where it tells any

    kind: str
    name: Name = Field(title="Name", description="Names the runs.", examples=["hospital-mortality"])
    purpose: str = Field(
        max_length=200,
        title="Purpose",
        description="What the result is for; every party's policy must allow it word for word.",
        examples=["mortality risk at admission"],
    )
    exchange: Name | None = Field(
        default=None,
        title="Exchange",
        description="Where the members meet, if they are on different machines and the roster names several.",
    )

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Read a job file of this kind.

        Raises `InputError` ``job.missing``, ``job.not_yaml`` or ``job.invalid``, which names the field.
        """
        path = Path(path)
        return _validated(cls, _yaml(path), path)

    @property
    @abstractmethod
    def members(self) -> tuple[str, ...]:
        """All that take part, each with a home: the parties, and the coordinator of a job that has one, last."""

    @property
    @abstractmethod
    def links(self) -> tuple[tuple[str, str], ...]:
        """The pairs of members that speak to each other."""

    @property
    def essential(self) -> frozenset[str]:
        """The members without whom the job cannot go on."""
        return frozenset(self.members)

    @abstractmethod
    def role(self, name: str) -> str:
        """What a member is in this job, in the field's term."""

    @abstractmethod
    def terms(self, name: str) -> Terms:
        """What one member's policy judges."""

    @abstractmethod
    def dataset(self, name: str) -> str | None:
        """The dataset that a member brings; None for a coordinator."""

    @abstractmethod
    def aliases(self) -> frozenset[str]:
        """All names that the job itself holds: the only ones that may leave a vault."""

    def completed(self, runs: Path) -> Self:
        """The job with whatever it leaves to be looked up among the coordinator's runs, before anybody is asked to
        agree to it: most kinds leave nothing.

        `runs` is their folder. Raises `InputError` for what is not found there.
        """
        return self

    def run_name(self, number: int) -> str:
        """The name of one run of this job: that of its folders, and of its state at each member."""
        return f"{self.name}-{self.digest()[:8]}-{number}"

    def has_run(self, run: str) -> bool:
        """Whether a run of this job may have that name."""
        return re.fullmatch(rf"{re.escape(self.run_name(1)[:-1])}[1-9][0-9]{{0,8}}", run) is not None

    def meeting(self, run: str) -> str:
        """Where the members of a run meet: the same for those who were given another job of this name, so that they can
        tell each other what differs.
        """
        return f"{self.name}-{run.rpartition('-')[2]}"

    def canonical(self) -> dict[str, Any]:
        """The job as plain JSON with every default filled in: what the parties compare."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """SHA-256 of the canonical job and the protocol's version."""
        content = json.dumps([PROTOCOL_VERSION, self.canonical()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def load_job(path: Path | str) -> Job:
    """Read a job file of any kind; errors are those of `Job.from_file`."""
    path = Path(path)
    content = _yaml(path)
    return _validated(_kind_of(content, path.name), content, path)


def job_of(content: Mapping[str, Any]) -> Job:
    """A job of any kind out of what `canonical` gave; raises `pydantic.ValidationError`, and `InputError` for a kind
    that there is not.
    """
    return _kind_of(content, "").model_validate(content)


def _kind_of(content: Any, where: str) -> type[Job]:
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind not in KINDS:
        problem = "the first line of a job is `kind:`, " + " or ".join(KINDS)
        raise InputError("job.invalid", problem=problem, where=", ".join(filter(None, (where, "kind"))))
    found: type[Job] = room(kind, "job").JOB
    return found


def _yaml(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_NBYTES + 1)
        if len(content) > MOST_NBYTES:
            raise InputError("job.invalid", problem="the file is larger than 1 MiB", where=path.name)
        return yaml.load(content.decode("utf-8"), BoundedLoader)  # noqa: S506 - a SafeLoader, and stricter
    except OSError as failure:
        raise InputError("job.missing", file=str(path), detail=str(failure)) from failure
    except InputError:  # which is a ValueError too
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as failure:  # a date such as 2020-13-45 is a ValueError
        line = getattr(getattr(failure, "problem_mark", None), "line", 0) + 1
        raise InputError("job.not_yaml", line=line, where=path.name) from failure


def _validated(cls: type[J], content: Any, path: Path) -> J:
    try:
        return cls.model_validate(content)
    except ValidationError as failure:
        field, problem = first_problem(failure)
        where = ", ".join(filter(None, (path.name, field)))
        raise InputError("job.invalid", problem=problem, where=where) from failure


def first_problem(failure: ValidationError) -> tuple[str, str]:
    """The field and the words of the first error: where a field may be of several kinds, of the one that was named."""
    errors = failure.errors(include_url=False, include_input=False)
    kinds = [error for error in errors if error["type"] == "literal_error" and error["loc"][-1] == "kind"]
    not_meant = [error["loc"][:-1] for error in kinds]
    meant = [error for error in errors if not any(error["loc"][: len(loc)] == loc for loc in not_meant)]
    if meant:
        first, problem = meant[0], plain_problem(meant[0])
    else:
        first = kinds[0]
        same = [error for error in kinds if len(error["loc"]) == len(first["loc"])]
        problem = "Input should be " + " or ".join(error["ctx"]["expected"] for error in same)
    # Of a union pydantic names the member too, by its class: that is not for people.
    return ".".join(str(part) for part in first["loc"] if not re.match(r"[A-Z]|function-", str(part))), problem
