"""How a vault reaches its peers: by the sockets that it was given, or by an exchange of its consortium.

Either way every byte is sealed, and nothing leaves before `open`, which a vault calls once its policy has agreed. Which
key a peer has to hold is what the home has pinned. Where it has pinned none, and the way is a socket pair, whoever made
the pair answers for the other end: that is a simulation on one machine, and nothing else.
"""

from __future__ import annotations

import hashlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from .consortium import consortium_of, peer_keys
from .errors import InputError
from .home import PartyHome
from .identity import Identity
from .network.channel import Channel, StreamLog
from .network.link import Access, Link
from .network.local import SocketCarrier
from .network.resuming import ResumingCarrier
from .network.sealed import SealedCarrier
from .network.session import Binding, Handshake

_ROOM = b"isthmus room v1\n"


class Reach(ABC):
    """The ways to the peers of one run. `job` is the digest of the job that this vault was given."""

    def __init__(self, home: PartyHome, *, run: str, job: str, log: StreamLog, timeout_s: float) -> None:
        consortium = consortium_of(home)
        self._home, self._run, self._job = home, run, job
        self._log, self._timeout_s = log, timeout_s
        self._consortium = consortium
        self._binding = Binding(consortium.name if consortium else "", run)

    @abstractmethod
    def open(self, attempt: int) -> dict[str, Channel]:
        """A channel to each peer, for one attempt."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the way itself, after its channels."""

    def _handshake(self, peer: str, key: bytes | None, attempt: int) -> Handshake:
        identity = Identity(self._home)
        return Handshake(
            identity.sign,
            identity.public,
            me=self._home.name,
            peer=peer,
            peer_key=key,
            binding=self._binding,
            attempt=attempt,
            job=self._job,
        )

    def _channel(self, carrier: SealedCarrier) -> Channel:
        return Channel(carrier, me=carrier.me, peer=carrier.peer, log=self._log, timeout_s=self._timeout_s)


class ReachBySockets(Reach):
    """By sockets, whose other ends the processes of the peers hold: `ends` by the peers' names."""

    def __init__(
        self,
        home: PartyHome,
        ends: Mapping[str, socket.socket],
        *,
        run: str,
        job: str,
        log: StreamLog,
        timeout_s: float,
    ) -> None:
        super().__init__(home, run=run, job=job, log=log, timeout_s=timeout_s)
        self._ends = dict(ends)

    def open(self, attempt: int) -> dict[str, Channel]:
        """A channel to each peer."""
        keys: Mapping[str, bytes | None] = peer_keys(self._home)
        if self._consortium is not None:
            keys = {peer: self._consortium.key_of(peer) for peer in self._ends}
        channels = {}
        for peer, end in self._ends.items():
            handshake = self._handshake(peer, keys.get(peer), attempt)
            channels[peer] = self._channel(SealedCarrier(SocketCarrier(end), handshake, me=self._home.name, peer=peer))
        return channels

    def close(self) -> None:
        """Close the sockets, where no channel has."""
        for end in self._ends.values():
            end.close()


class ReachByExchange(Reach):
    """By an exchange of the consortium: the one that the job names, or the only one.

    `on_state` is told when the exchange can be reached, and when no longer. Raises `InputError` ``roster.not_pinned``
    for a home that has accepted no roster, and what `Consortium` raises of the home itself, of a peer that must not
    take part, and of an unknown exchange.
    """

    def __init__(
        self,
        home: PartyHome,
        peers: tuple[str, ...],
        *,
        exchange: str | None,
        on_state: Callable[[bool], None],
        run: str,
        job: str,
        log: StreamLog,
        timeout_s: float,
    ) -> None:
        super().__init__(home, run=run, job=job, log=log, timeout_s=timeout_s)
        if self._consortium is None:
            raise InputError("roster.not_pinned", party=home.name)
        self._consortium.check_self(home)
        self._keys = {peer: self._consortium.key_of(peer) for peer in peers}
        self._entry = self._consortium.exchange(exchange)
        self._on_state = on_state
        self._link: Link | None = None

    def open(self, attempt: int) -> dict[str, Channel]:
        """Connect, and make a channel to each peer."""
        access = Access(
            self._entry.address,
            self._entry.certificate.encode(),
            self._home.tls_certificate(),
            self._home.tls_key(),
        )
        room = room_of(self._binding)
        link = self._link = Link(access, me=self._home.name, room=room, epoch=attempt, on_state=self._on_state)
        channels = {}
        for peer, key in self._keys.items():
            handshake = self._handshake(peer, key, attempt)
            channels[peer] = self._channel(ResumingCarrier(link.end(peer), handshake, me=self._home.name, peer=peer))
        return channels

    def close(self) -> None:
        """End the connections."""
        if self._link is not None:
            self._link.close()


def room_of(binding: Binding) -> str:
    """Where an exchange brings the members of one run together: 32 hexadecimal digits that do not name it."""
    return hashlib.sha256(_ROOM + f"{binding.consortium}\n{binding.run}".encode()).hexdigest()[:32]
