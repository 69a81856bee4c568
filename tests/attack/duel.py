"""Two members exchange messages over whatever way there is, and what each is given is compared with what was sent."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import random
import threading
from typing import Any

import numpy as np
from stage import Stage

from isthmus.parties.errors import IsthmusError
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.message import Message, Step, Topic

LOWER, HIGHER = "insurer", "lab"
WELL, HANGS = "well", "hangs"
_STEPS = {Topic.AGREE: Step.JOB, Topic.TRAIN: Step.FORWARD, Topic.STATISTICS: Step.VALUES}
_NUMBER = itertools.count()
_LARGE = 200_000  # numbers: 1.6 MB, which is two frames


def messages(sender: str, count: int, seed: int = 0) -> list[Message]:
    """What a member sends: all topics in turn, all different, one of them in several frames."""
    made, rng = [], random.Random(f"{sender} {seed}")
    for number in range(count):
        topic = list(_STEPS)[number % len(_STEPS)]
        size = _LARGE if number == count // 2 else 40
        items = np.random.default_rng(rng.randrange(2**32)).normal(size=size)
        made.append(Message(topic, _STEPS[topic], {"number": number, "from": sender}, {"items": items}))
    return made


def same(one: Message, other: Message) -> bool:
    return (
        (one.topic, one.step, dict(one.fields), list(one.arrays))
        == (other.topic, other.step, dict(other.fields), list(other.arrays))
        and all(one.arrays[name].tobytes() == other.arrays[name].tobytes() for name in one.arrays)
    )  # fmt: skip


class Side(threading.Thread):
    """One member: sends a message, waits for the peer's, and so on. `wrong`: messages that the peer did not send."""

    def __init__(self, channel: Channel, mine: list[Message], theirs: list[Message]) -> None:
        super().__init__(daemon=True)
        self.channel, self.mine, self.theirs = channel, mine, theirs
        self.wrong = self.right = 0
        self.end = HANGS

    def run(self) -> None:
        try:
            self._talk()
            self.end = WELL
        except IsthmusError as failure:
            self.end = failure.code
        except BaseException as failure:
            self.end = f"FAULT {type(failure).__name__}: {failure}"
        finally:
            with contextlib.suppress(IsthmusError):
                self.channel.close()

    def _talk(self) -> None:
        for mine, due in zip(self.mine, self.theirs, strict=True):
            self.channel.send(mine.topic, mine.step, mine.fields, mine.arrays)
            came = self.channel.receive(due.topic, due.step)
            self.right += same(came, due)
            self.wrong += not same(came, due)
        self.wrong += sum(len(waiting) for waiting in self.channel._inbox.values())
        self.channel.close(linger_s=self.channel.timeout_s)


class Duel:
    """A whole exchange of messages between insurer and lab, in a run of its own."""

    def __init__(
        self, stage: Stage, address: str, count: int = 9, *, timeout_s: float = 8.0, run: str = "", **changes: Any
    ) -> None:
        self.run = run or f"duel-{next(_NUMBER)}"
        mine = {name: messages(name, count) for name in (LOWER, HIGHER)}
        self.sides = []
        for me, peer in ((LOWER, HIGHER), (HIGHER, LOWER)):
            channel = stage.channel(me, peer, run=self.run, address=address, timeout_s=timeout_s, **changes)
            self.sides.append(Side(channel, mine[me], mine[peer]))

    def start(self) -> Duel:
        for side in self.sides:
            side.start()
        return self

    def finish(self, deadline_s: float = 180.0) -> Duel:
        for side in self.sides:
            side.join(deadline_s)
            if side.is_alive():
                faulthandler.dump_traceback()  # a hang is a finding: where?
        return self

    @property
    def wrong(self) -> int:
        """Messages that were delivered and not sent, and ends that no code explains."""
        return sum(side.wrong + (side.end == HANGS or side.end.startswith("FAULT")) for side in self.sides)

    @property
    def ends(self) -> str:
        return " / ".join(side.end for side in self.sides)

    @property
    def went_well(self) -> bool:
        return all(side.end == WELL and side.right == len(side.mine) for side in self.sides) and not self.wrong

    def refused(self) -> dict[str, int]:
        """Frames that were not accepted, of both."""
        counts: dict[str, int] = {}
        for side in self.sides:
            for reason, count in side.channel._carrier.refused.items():  # type: ignore[attr-defined]
                counts[reason] = counts.get(reason, 0) + count
        return counts
