"""Plain updates: each party's own, for the coordinator to see.

::

    1  C→k  ROUND   the model; it numbers the exchange
    2  k→C  OFFER   k has its update ready
    3  C→k  GIVE    to those that were ready in time, one after the other
    4  k→C  VALUES  the arrays that the transforms left (`transform.Packing`), each in chunks; the first with k's tally

**Who learns what**: the coordinator sees every update, and with it a good deal about the rows that it was made from
(Zhu et al., "Deep leakage from gradients", NeurIPS 2019). This way is taken only where all policies allow it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic, Value
from .members import Members, send_vector
from .summing import order_of
from .tally import Tally
from .transform import SCALE_ITEMS, Packed, Packing, Vector

_FIGURES = "tally"


@dataclass(frozen=True)
class Update:
    """What one party gave to a round: its update ``(size,)``, which may be empty, and its tally."""

    party: str
    values: Vector
    tally: Tally


class UpdateGiving:
    """The party's side."""

    steps = (Step.GIVE,)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ready: tuple[int, Packed, Tally] | None = None

    def offer(self, number: int, packed: Packed, tally: Tally) -> None:
        """Have an update ready for an exchange."""
        self._ready = number, packed, tally
        self._channel.send(Topic.TRAIN, Step.OFFER, {"sum": number})

    def handle(self, order: Message) -> None:
        """Give it."""
        if self._ready is None or order.fields.get("sum") != self._ready[0]:
            raise self._channel.refuse(Topic.TRAIN, "an update that was not offered")
        (number, packed, tally), self._ready = self._ready, None
        fields: Mapping[str, Value] = {_FIGURES: list(tally)}
        for array in packed.arrays().values():
            send_vector(self._channel, Topic.TRAIN, Step.VALUES, number, array, fields)
            fields = {}


def gather_updates(
    members: Members, asked: Sequence[str], number: int, packing: Packing, *, deadline_s: float
) -> Iterator[Update]:
    """The updates of those that are ready within `deadline_s`, in the job's order, one at a time.

    The caller has sent the request. Who is late, gone, or does not keep to the protocol is left out.
    """
    ready = members.hear(asked, Topic.TRAIN, Step.OFFER, number, deadline=time.monotonic() + deadline_s)
    for name in order_of(tuple(ready), asked):
        members.tell([name], Topic.TRAIN, Step.GIVE, number)
        found = _hear(members, name, number, packing, time.monotonic() + deadline_s)
        if found is not None:
            yield found


def _hear(members: Members, name: str, number: int, packing: Packing, deadline: float) -> Update | None:
    arrays: dict[str, Array] = {}
    tally: Tally | None = None
    sizes = {"values": packing.kept, "index": packing.kept, "scale": -(-packing.kept // SCALE_ITEMS)}
    for place, (array, dtype) in enumerate(packing.dtypes.items()):
        answer = members.hear_vector(name, Topic.TRAIN, Step.VALUES, number, sizes[array], dtype, deadline=deadline)
        if answer is None:
            return None
        arrays[array], fields = answer
        if place == 0:
            tally = Tally.of(fields.get(_FIGURES))
    packed = Packed(**arrays)
    if tally is None or not _in_place(packed, packing):
        members.refuse(name, Topic.TRAIN, "an update that cannot be one")
        return None
    with np.errstate(over="ignore"):  # of bytes with a huge scale: Krum's distances would be no numbers
        values = packing.decode(packed)
    if not np.isfinite(values).all():
        members.refuse(name, Topic.TRAIN, "an update that is not finite")
        return None
    return Update(name, values, tally)


def _in_place(packed: Packed, packing: Packing) -> bool:
    """Whether the places rise and lie within the update, and the scales are no less than zero."""
    if packed.scale is not None and (packed.scale < 0).any():
        return False
    if packed.index is None or not len(packed.index):
        return True
    return bool((np.diff(packed.index.astype(np.int64)) > 0).all()) and int(packed.index[-1]) < packing.size
