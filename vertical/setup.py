"""How a split training begins: the parties see that they hold the same, and agree on the step to go on from.

The messages are SETUP, READY and RESUME of the protocol in `split`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..parties.checkpoint import Checkpoints
from ..parties.errors import InputError
from ..parties.network.channel import Channel
from ..parties.network.message import Step, Topic
from .batches import Parts, epoch_order
from .models import SplitPlan


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to: a job and an alignment, by their digests."""

    job: str
    alignment: str

    def meta(self, **more: Any) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return {"job": self.job, "alignment": self.alignment, **more}

    def steps(self, checkpoints: Checkpoints) -> list[int]:
        """The steps that were saved for this job and this alignment."""
        wanted = self.meta()
        return [step for step in checkpoints.steps() if wanted.items() <= checkpoints.load(step)[1].items()]


def _setup(plan: SplitPlan, parts: Parts, count: int, identity: Identity) -> dict[str, Any]:
    order = epoch_order(parts.train, plan.seed, 1)
    return {
        **identity.meta(),
        "rows": count,
        "plan": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()},
        "order": hashlib.sha256(order.astype("<i8").tobytes()).hexdigest(),
    }


def begin_active(
    channels: Mapping[str, Channel],
    plan: SplitPlan,
    parts: Parts,
    count: int,
    identity: Identity,
    checkpoints: Checkpoints,
) -> int:
    """SETUP, READY, RESUME at A: the step to go on from."""
    for channel in channels.values():
        channel.send(Topic.SETUP, Step.SETUP, _setup(plan, parts, count, identity))
    common = set(identity.steps(checkpoints))
    for channel in channels.values():
        steps = channel.receive(Topic.SETUP, Step.READY).fields.get("steps")
        if not isinstance(steps, list) or not all(type(step) is int for step in steps):
            raise channel.refuse(Topic.SETUP, "no list of steps")
        common &= set(steps)
    step = max(common, default=0)
    for channel in channels.values():
        channel.send(Topic.SETUP, Step.RESUME, {"step": step})
    checkpoints.drop_after(step)
    return step


def begin_passive(
    channel: Channel, plan: SplitPlan, parts: Parts, count: int, identity: Identity, checkpoints: Checkpoints
) -> int:
    """SETUP, READY, RESUME at k."""
    theirs, mine = channel.receive(Topic.SETUP, Step.SETUP).fields, _setup(plan, parts, count, identity)
    if theirs != mine:
        raise InputError("job.not_agreed", party=channel.me, peer=channel.peer, field="training")
    steps = identity.steps(checkpoints)
    channel.send(Topic.SETUP, Step.READY, {"steps": steps})
    step = channel.receive(Topic.SETUP, Step.RESUME).fields.get("step")
    if type(step) is not int or step not in [0, *steps]:
        raise channel.refuse(Topic.SETUP, "a step that was not offered")
    checkpoints.drop_after(step)
    return int(step)
