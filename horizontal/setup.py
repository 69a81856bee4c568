"""How a training begins at the coordinator: SETUP and READY of `rounds`, and the round to go on with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError, PeerFailure
from ..parties.network.message import Message, Step, Topic
from .course import Course
from .members import Members
from .plan import RoundsPlan


@dataclass(frozen=True)
class Terms:
    """Digests of what all must hold alike."""

    job: str
    plan: str
    layout: str


def set_up(members: Members, plan: RoundsPlan, terms: Terms, me: str, checkpoints: Checkpoints) -> Course | None:
    """SETUP and READY: the state to go on from, or None at the beginning.

    Who is not ready within the deadline is gone. Raises `InputError` ``model.parameters`` and ``job.not_agreed``.
    """
    names = members.names
    members.tell(names, Topic.SETUP, Step.SETUP, 0, asdict(terms))
    deadline = time.monotonic() + plan.deadline_s
    ready = members.hear(names, Topic.SETUP, Step.READY, 0, deadline=deadline, accept=_is_ready)
    for name in names:
        if name not in ready:
            members.drop(name, late(me, name, Topic.SETUP, Step.READY, plan.deadline_s))
            continue
        theirs = ready[name].fields
        if theirs["layout"] != terms.layout:
            raise InputError("model.parameters", party=name)
        if {field: theirs[field] for field in asdict(terms)} != asdict(terms):
            raise InputError("job.not_agreed", party=me, peer=name, field="rounds")
    return _greatest(terms, checkpoints, {name: message.fields["steps"] for name, message in ready.items()})


def late(me: str, party: str, topic: Topic, step: Step, limit_s: float) -> PeerFailure:
    """Why a party that did not answer in time is asked no more."""
    return PeerFailure("peer.deadline", party=me, peer=party, topic=topic, step=step, seconds=round(limit_s))


def _greatest(terms: Terms, checkpoints: Checkpoints, held: Mapping[str, list[int] | None]) -> Course | None:
    """The last state at which all parties can stand. A party without anything to keep can stand anywhere."""
    for label in reversed(checkpoints.steps()):
        arrays, meta = checkpoints.load(label)
        if (meta.get("job"), meta.get("plan")) != (terms.job, terms.plan):
            continue
        course = Course.load(arrays, meta)
        if all(steps is None or _stands(course, name, steps) for name, steps in held.items()):
            checkpoints.drop_after(label)
            return course
    checkpoints.clear()
    return None


def _stands(course: Course, name: str, steps: list[int]) -> bool:
    """Whether a party's checkpoints reach back to the last of its updates that is in the model."""
    return max((one for one in steps if one <= course.round), default=0) >= course.counted.get(name, 0)


def _is_ready(_: str, message: Message) -> bool:
    fields: Mapping[str, Any] = message.fields
    steps = fields.get("steps")
    if not all(isinstance(fields.get(name), str) for name in ("job", "plan", "layout")):
        return False
    return steps is None or (isinstance(steps, list) and all(type(step) is int for step in steps))
