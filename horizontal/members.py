"""Members: the coordinator's view of the parties, of whom some may be slow and some may be gone.

Everything a party sends in answer to an exchange carries the exchange's number (field ``sum``), which only rises. So
the coordinator can go on without a party that is late, and tell its belated answer from a current one. A party that is
late is asked again once it has answered; one whose channel has failed never is. No failure of a single party is raised
here: who judges whether enough are left is the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from ..parties.errors import PeerFailure
from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic, Value

REPLIES = (Step.READY, Step.OFFER, Step.VALUES, Step.SHARES, Step.MASKED, Step.CONSENT, Step.UNMASK)
CHUNK_ITEMS = 1 << 20  # of a vector, in one message
_GLANCE_S = 0.001
_PAUSE_S = 0.2  # of a party in the middle of a vector, before the others get their turn


class Members:
    """The channels to all parties, in the job's order. `gone` holds why some are closed and no longer asked."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = dict(channels)
        self._owes: dict[str, int] = {}  # party → the exchange it has yet to answer
        self.gone: dict[str, PeerFailure] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All parties whose channels work."""
        return tuple(name for name in self._channels if name not in self.gone)

    def idle(self, topic: Topic) -> tuple[str, ...]:
        """Those that owe no answer, after a glance at what has come in from those that did."""
        for name in list(self._owes):
            deadline = time.monotonic() + _PAUSE_S
            while name in self._owes and self._next(name, topic, _GLANCE_S) and time.monotonic() < deadline:
                pass
        return tuple(name for name in self.names if name not in self._owes)

    def tell(
        self,
        names: Iterable[str],
        topic: Topic,
        step: Step,
        number: int,
        fields: Mapping[str, Value] | None = None,
        arrays: Mapping[str, Array] | None = None,
        *,
        answer: bool = True,
    ) -> None:
        """Send the same message to some parties; each owes an `answer` from then on."""
        for name in names:
            self.tell_each({name: (fields or {}, arrays or {})}, topic, step, number, answer=answer)

    def tell_each(
        self,
        messages: Mapping[str, tuple[Mapping[str, Value], Mapping[str, Array]]],
        topic: Topic,
        step: Step,
        number: int,
        *,
        answer: bool = True,
    ) -> None:
        """Send each party a message of its own."""
        for name, (fields, arrays) in messages.items():
            if name in self.gone:
                continue
            try:
                self._channels[name].send(topic, step, {"sum": number, **fields}, arrays)
            except PeerFailure as failure:
                self.drop(name, failure)
                continue
            if answer:
                self._owes[name] = number

    def tell_vector(
        self,
        names: Iterable[str],
        topic: Topic,
        step: Step,
        number: int,
        vector: Array,
        fields: Mapping[str, Value],
        *,
        answer: bool = True,
    ) -> None:
        """Send a vector in chunks (see `send_vector`) to some parties; each owes an `answer` from then on."""
        for name in names:
            if name in self.gone:
                continue
            try:
                send_vector(self._channels[name], topic, step, number, vector, fields)
            except PeerFailure as failure:
                self.drop(name, failure)
                continue
            if answer:
                self._owes[name] = number

    def hear(
        self,
        names: Iterable[str],
        topic: Topic,
        step: Step,
        number: int,
        *,
        deadline: float,
        accept: Callable[[str, Message], bool] = lambda name, message: True,
    ) -> dict[str, Message]:
        """What each party answers until `deadline` (of `time.monotonic`); whoever does not is left out.

        A party whose answer `accept` does not take has broken the protocol, and is gone.
        """
        heard: dict[str, Message] = {}
        for name in names:
            message = self._current(name, topic, number, deadline)
            if message is None:
                continue
            if message.step is not step or not accept(name, message):
                self.drop(name, self._channels[name].refuse(topic, f"{message.step} is not the {step} that was due"))
                continue
            self._owes.pop(name, None)
            heard[name] = message
        return heard

    def hear_vector(
        self, name: str, topic: Topic, step: Step, number: int, size: int, dtype: str, *, deadline: float
    ) -> tuple[Array, Mapping[str, Value]] | None:
        """One party's vector of `size` numbers with the fields of its first chunk; None if it is late or gone."""
        gathered = VectorReader(size, dtype)
        while not gathered.complete:
            message = self._current(name, topic, number, deadline)
            if message is None:
                return None
            if message.step is not step or not gathered.add(message):
                self.drop(name, self._channels[name].refuse(topic, f"a chunk of {step} is not in order"))
                return None
        self._owes.pop(name, None)
        return gathered.vector, gathered.fields

    def hear_vectors(
        self, names: Iterable[str], topic: Topic, step: Step, number: int, size: int, dtype: str, *, deadline: float
    ) -> Iterator[tuple[str, Array]]:
        """Each party's vector of `size` numbers as soon as it is whole; whoever is late or gone is left out.

        The parties send at the same time. One that has begun is read until it pauses, so that as a rule there is one
        vector in memory; one that is silent keeps nobody waiting.
        """
        readers: dict[str, VectorReader] = {}
        waiting = list(names)
        while waiting and time.monotonic() < deadline:
            for name in list(waiting):
                patience_s = _GLANCE_S
                while (message := self._current(name, topic, number, time.monotonic() + patience_s)) is not None:
                    if name not in readers:
                        readers[name] = VectorReader(size, dtype)
                    reader = readers[name]
                    if message.step is not step or not reader.add(message):
                        self.refuse(name, topic, f"a chunk of {step} is not in order")
                        break
                    if reader.complete:
                        self._owes.pop(name, None)
                        waiting.remove(name)
                        yield name, readers.pop(name).vector
                        break
                    patience_s = min(_PAUSE_S, max(deadline - time.monotonic(), _GLANCE_S))
                if name in self.gone and name in waiting:
                    waiting.remove(name)

    def refuse(self, name: str, topic: Topic, detail: str) -> None:
        """Ask a party no more that has broken the protocol; `detail` is for our own log."""
        self.drop(name, self._channels[name].refuse(topic, detail))

    def drop(self, name: str, failure: PeerFailure) -> None:
        """Ask a party no more, and close its channel, so that it does not wait for what will not come."""
        self._owes.pop(name, None)
        self.gone.setdefault(name, failure)
        self._channels[name].close()

    def _current(self, name: str, topic: Topic, number: int, deadline: float) -> Message | None:
        """A party's next answer to this exchange; older ones are passed over, until the deadline."""
        while name not in self.gone:
            message = self._next(name, topic, max(deadline - time.monotonic(), _GLANCE_S))
            if message is None or message.fields["sum"] == number:
                return message
            if time.monotonic() > deadline:  # it sends belated answers without end
                break
        return None

    def _next(self, name: str, topic: Topic, timeout_s: float) -> Message | None:
        channel = self._channels[name]
        try:
            message = channel.receive(topic, *REPLIES, timeout_s=timeout_s)
        except PeerFailure as failure:
            if failure.code != "peer.deadline":
                self.drop(name, failure)
            return None
        number = message.fields.get("sum")
        if type(number) is not int or number > self._owes.get(name, number):
            self.drop(name, channel.refuse(topic, "an answer to what was not asked"))
            return None
        if number == self._owes.get(name) and _is_last(message):
            self._owes.pop(name, None)
        return message


def _is_last(message: Message) -> bool:
    """Whether a message is the last chunk of a vector, or none."""
    chunk, chunks = message.fields.get("chunk", 0), message.fields.get("chunks", 1)
    return type(chunk) is int and type(chunks) is int and chunk == chunks - 1


def send_vector(
    channel: Channel, topic: Topic, step: Step, number: int, vector: Array, fields: Mapping[str, Value] | None = None
) -> None:
    """Send a vector as messages of at most `CHUNK_ITEMS` numbers; the first carries `fields` as well."""
    chunks = max(1, -(-len(vector) // CHUNK_ITEMS))
    for chunk in range(chunks):
        part = vector[chunk * CHUNK_ITEMS : (chunk + 1) * CHUNK_ITEMS]
        more = fields if chunk == 0 and fields else {}
        channel.send(topic, step, {"sum": number, "chunk": chunk, "chunks": chunks, **more}, {"values": part})


class VectorReader:
    """Puts the chunks of `send_vector` together again: of a known size and dtype, each in its turn."""

    def __init__(self, size: int, dtype: str) -> None:
        self.vector: Array = np.empty(size, dtype=dtype)
        self.fields: Mapping[str, Value] = {}
        self._chunks, self._seen, self._filled = max(1, -(-size // CHUNK_ITEMS)), 0, 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self._seen == self._chunks

    def add(self, message: Message) -> bool:
        """Take in the next chunk; False if it is not the one that is due."""
        if (message.fields.get("chunk"), message.fields.get("chunks")) != (self._seen, self._chunks):
            return False
        part = message.arrays.get("values")
        size = min(CHUNK_ITEMS, len(self.vector) - self._filled)
        if part is None or len(message.arrays) != 1 or part.dtype != self.vector.dtype or part.shape != (size,):
            return False
        if self._chunks == 1:
            self.vector = part  # it is a view of its own frame: nothing to copy
        else:
            self.vector[self._filled : self._filled + size] = part
        self._filled += size
        if self._seen == 0:
            self.fields = {k: v for k, v in message.fields.items() if k not in ("sum", "chunk", "chunks")}
        self._seen += 1
        return True


def receive_vector(
    channel: Channel, topic: Topic, step: Step, first: Message, size: int, dtype: str
) -> tuple[Array, Mapping[str, Value]]:
    """The party's side of `Members.tell_vector`: `first` is the chunk that has come already.

    Raises `PeerFailure` ``peer.protocol`` for chunks that are not in order.
    """
    reader = VectorReader(size, dtype)
    message = first
    while True:
        if message.fields.get("sum") != first.fields.get("sum") or not reader.add(message):
            raise channel.refuse(topic, f"a chunk of {step} is not in order")
        if reader.complete:
            return reader.vector, reader.fields
        message = channel.receive(topic, step)
