"""Sums over parties: what one sum is, and the two ways to come by it, masked (`secagg`) and plain.

::

    1  C→k  a request that the caller sends (`Step.ROUND`, `Step.ASK`): it numbers the exchange
    2  k→C  OFFER   k has its numbers ready
    3  C→k  GIVE    to those that were ready in time, one after the other
    4  k→C  VALUES  the numbers

**Who learns what**: in plain, the coordinator sees every party's numbers; so this way is taken only where every policy
allows it (`plain_updates`). `secagg` is the other one, in which it learns the sum alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic
from .fixed_point import Encoding
from .members import Members, send_vector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sum:
    """One sum, described alike by all that take part in it.

    `content` is the digest (64 hex digits) of what it is over: a model, or a request for statistics. Two sums over the
    same content with other parties in them would give away those in which they differ. So a masked sum is `strict` if
    no party may help to unmask that content twice, whatever the round, the attempt and the job: the rule for models. A
    sum over data that stay as they are is not strict: it may be asked again and gives the same numbers, provided that
    the same parties are in it.

    `terms` is the digest of all else that the coordinator has told a party and that bears on its numbers: weights,
    ranges, a model to judge. A masked sum comes about only between parties with the same: if they were told different
    things, numbers of one could be made to stand out. It does not make it another content.
    """

    job: str
    attempt: int
    number: int
    content: str
    parties: tuple[str, ...]  # those that were asked, in the job's order
    strict: bool = True
    terms: str = ""


@dataclass(frozen=True)
class Gathered:
    """A sum ``(size,)``, and whose numbers are in it. With too few left to go on there are no survivors, and zeros."""

    total: Floats
    survivors: tuple[str, ...]


class Giving(Protocol):
    """A party's side. It answers orders as they come, so that an exchange which was given up leaves nothing waiting."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The orders that `handle` takes."""

    def offer(self, one: Sum, values: Floats, encoding: Encoding, *, data: str = "") -> None:
        """Have numbers ready for a sum.

        `data` is the digest of the party's own rows that they were made from, for a sum that is not `strict`: over
        other rows it is another sum. Raises `InputError` for NaN and for what the encoding cannot hold.
        """

    def handle(self, order: Message) -> None:
        """Do what the coordinator orders: a message of one of `steps`."""


class Gathering(Protocol):
    """The coordinator's side."""

    def gather(
        self,
        members: Members,
        topic: Topic,
        one: Sum,
        size: int,
        encoding: Encoding,
        *,
        deadline_s: float,
        fewest: int = 1,
    ) -> Gathered:
        """Collect from those of `one.parties` that are ready within `deadline_s`.

        The caller has sent the request. Who is late or gone is missing from the survivors; where fewer than `fewest`,
        or too few for the sum, are left there are none, and it is for the caller to end the job (``rounds.quorum``).
        A quorum has to be said here, before anything is unmasked: no masked sum can be had again with more parties.
        """

    def pending(self, topic: Topic) -> Sum | None:
        """The sum that an earlier attempt added up and perhaps never unmasked."""

    def resume(self, members: Members, topic: Topic, number: int, *, deadline_s: float) -> Gathered:
        """Finish the pending sum, before any other of the topic is begun. `number` counts this exchange."""


class PlainGiving:
    """The party's side without masks."""

    steps = (Step.GIVE,)

    def __init__(self, channel: Channel, topic: Topic) -> None:
        self._channel, self._topic = channel, topic
        self._ready: tuple[int, Array] | None = None

    def offer(self, one: Sum, values: Floats, encoding: Encoding, *, data: str = "") -> None:
        """Have numbers ready."""
        self._ready = one.number, encoding.encode(values, self._channel.me)
        self._channel.send(self._topic, Step.OFFER, {"sum": one.number})

    def handle(self, order: Message) -> None:
        """Give them."""
        if self._ready is None or order.fields.get("sum") != self._ready[0]:
            raise self._channel.refuse(self._topic, "numbers that were not offered")
        (number, words), self._ready = self._ready, None
        send_vector(self._channel, self._topic, Step.VALUES, number, words)


class PlainGathering:
    """The coordinator's side without masks. The arithmetic is that of the masked sum, so both give the same."""

    def gather(
        self,
        members: Members,
        topic: Topic,
        one: Sum,
        size: int,
        encoding: Encoding,
        *,
        deadline_s: float,
        fewest: int = 1,
    ) -> Gathered:
        """Ask those that are ready, one after the other."""
        deadline = time.monotonic() + deadline_s
        ready = members.hear(one.parties, topic, Step.OFFER, one.number, deadline=deadline)
        words = encoding.words(size)
        total: Array = np.zeros(words, dtype=encoding.dtype)
        survivors: list[str] = []
        for name in ready:
            members.tell([name], topic, Step.GIVE, one.number)
            answer = members.hear_vector(
                name, topic, Step.VALUES, one.number, words, encoding.dtype, deadline=time.monotonic() + deadline_s
            )
            if answer is not None:
                total += answer[0]
                survivors.append(name)
        if len(survivors) < fewest:
            return Gathered(np.zeros(size), ())
        return Gathered(encoding.decode(total, size), tuple(survivors))

    def pending(self, topic: Topic) -> Sum | None:
        """Nothing: plain sums can be asked again."""
        return None

    def resume(self, members: Members, topic: Topic, number: int, *, deadline_s: float) -> Gathered:
        """Nothing, likewise."""
        return Gathered(np.zeros(0), ())


def asked_in(order: Message, parties: Sequence[str], channel: Channel, topic: Topic) -> tuple[int, tuple[str, ...]]:
    """A party's look at a request: the sum's number, and who is asked, in the order of the job's `parties`.

    Raises `PeerFailure` ``peer.protocol`` unless these are parties of the job, each once, and this one among them.
    """
    number, names = order.fields.get("sum"), order.fields.get("parties")
    if type(number) is not int or not isinstance(names, list):
        raise channel.refuse(topic, "a sum without a number, or over nobody")
    asked = order_of(names, parties)
    if len(asked) != len(names) or channel.me not in asked:
        raise channel.refuse(topic, "a sum over parties that the job does not name")
    return number, asked


def order_of(parties: Sequence[str], among: Sequence[str]) -> tuple[str, ...]:
    """The members of `among` that are in `parties`, in the order of `among`."""
    return tuple(name for name in among if name in parties)
