"""What a signed job meets at the lab, and what it is refused with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from isthmus.flows.jobs import Job
from isthmus.parties.approvals import require_approval
from isthmus.parties.consortium import consortium_of
from isthmus.parties.errors import InputError, PolicyRefusal
from isthmus.parties.home import PartyHome
from isthmus.parties.starts import Start, judge_start
from isthmus.parties.state import State

EXAMPLES = Path(__file__).parents[3] / "examples"
PLANTED = "PLANTEDPURPOSE"


def start_at_the_lab(homes: Path, job: Job, start: Start | None, run: str = "hospital-mortality-1") -> None:
    """What the lab's vault does, in its order, before anything leaves."""
    lab = PartyHome(homes / "lab")
    consortium = consortium_of(lab)
    assert consortium is not None
    policy, state = lab.config.policy, State(lab)
    judge_start(
        start,
        policy=policy,
        state=state,
        party="lab",
        consortium=consortium.name,
        key_of=consortium.key_of,
        kind=job.kind,
        job_digest=job.digest(),
        run=run,
        begins_anew=False,
        now=datetime.now(UTC),
    )
    assert start is not None
    require_approval(policy, state, start, json.dumps(job.canonical()), "lab", run=run)


def refused(call: Callable[[], Any], code: str) -> InputError | PolicyRefusal:
    with pytest.raises((InputError, PolicyRefusal)) as caught:
        call()
    assert caught.value.code == code
    return caught.value
