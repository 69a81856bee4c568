"""What is to be done, as it travels: a party's part of a job through the Prefect server, a whole job to a process.

An `Order` names a job, who has signed it, which run of it, and which phases. It is plain JSON and nothing else: a
block, a template or a reference in it is a word that no field takes, and the order is refused. Whether the job is done
is for the party's vault to judge: signature, policy, roster, and that its peers were given the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...parties.errors import InputError, plain_problem
from ...parties.events import Phase
from ...parties.network.channel import TIMEOUT_S
from ...parties.starts import Start
from ..jobs import Job, job_of
from ..orders import RUN_PATTERN

MOST_NBYTES = 2 * 1024 * 1024
MOST_TIMEOUT_S = 3600.0


class Order(BaseModel):
    """One party's part of one attempt at a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: dict[str, Any]
    start: Start | None
    run: str = Field(pattern=RUN_PATTERN)
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=len(Phase))
    fresh: bool = False
    timeout_s: float = Field(default=TIMEOUT_S, gt=0, le=MOST_TIMEOUT_S)


class Assignment(BaseModel):
    """What a coordinator's worker has the process of a coordinating flow do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: UUID
    kind: str
    job: dict[str, Any]
    fresh: bool = False
    signature: str = ""


def order_of(parameters: Mapping[str, Any], party: str) -> tuple[Order, Job]:
    """Read a party's order.

    Raises `InputError` ``order.invalid`` for anything else, and for a job without that party.
    """
    try:
        if set(parameters) != {"order"} or len(json.dumps(parameters)) > MOST_NBYTES:
            raise InputError("order.invalid", party=party, problem="it has other parts")
        order = Order.model_validate_json(json.dumps(parameters["order"]))
        job = job_of(order.job)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        raise InputError("order.invalid", party=party, problem=plain_problem(first)) from failure
    except (InputError, ValueError, RecursionError) as failure:
        raise InputError(
            "order.invalid", party=party, problem="there is no such job", detail=repr(failure)
        ) from failure
    if party not in job.members:
        raise InputError("order.invalid", party=party, problem="it takes no part in this job")
    if not job.has_run(order.run):
        raise InputError("order.invalid", party=party, problem="the run is not one of this job")
    return order, job


def said_key(number: int) -> str:
    """Under which key the worker leaves the `number`-th bundle of its vault's events with its run."""
    return f"isthmus-events-{number}"


def pool_of(member: str) -> str:
    """The pool in which a member's worker finds its orders."""
    return f"isthmus-{member}"


def attempt_key(run: str, member: str, attempt: int, coordinating: UUID) -> str:
    """Of all starts of a member's part, which one is meant: the server starts each once."""
    return f"{coordinating}:{run}:{member}:{attempt}"
