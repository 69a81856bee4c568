"""How a vault reaches its peers: by the sockets that it was given, or by an exchange of its consortium.

Either way every byte is sealed, and nothing leaves before `open`, which a vault calls once its policy has agreed. Which
key a peer has to hold is what the home has pinned. Where it has pinned none, and the way is a socket pair, whoever made
the pair answers for the other end: that is a simulation on one machine, and nothing else.
"""

from __future__ import annotations

import hashlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from .consortium import Consortium, peer_keys
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


class RunWays(NamedTuple):
    """What all ways of one run have in common: `meeting`, under which its members find each other, and the digest of
    the job that this vault was given.
    """

    home: PartyHome
    meeting: str
    job: str
    log: StreamLog
    timeout_s: float

    def binding(self, consortium: Consortium | None) -> Binding:
        """What the other side has to share for a session to come about."""
        return Binding(consortium.name if consortium else "", self.meeting)

    def handshake(self, peer: str, key: bytes | None, binding: Binding, attempt: int) -> Handshake:
        """This side of a session with a peer, who has to hold `key`; None: whoever is at the other end."""
        identity = Identity(self.home)
        return Handshake(
            identity.sign,
            identity.public,
            me=self.home.name,
            peer=peer,
            peer_key=key,
            binding=binding,
            attempt=attempt,
            job=self.job,
        )

    def channel(self, carrier: SealedCarrier) -> Channel:
        """The channel over a sealed way."""
        return Channel(carrier, me=carrier.me, peer=carrier.peer, log=self.log, timeout_s=self.timeout_s)


class Reach(ABC):
    """The ways to the peers of one run."""

    @abstractmethod
    def check(self, consortium: Consortium | None) -> None:
        """Raise `InputError` unless the home's roster, None without one, lets it meet these peers now."""

    @abstractmethod
    def open(self, attempt: int, consortium: Consortium | None) -> dict[str, Channel]:
        """A channel to each peer, for one attempt, believing the keys of the roster that was checked."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the way itself, after its channels. Safe to call twice."""


class ReachBySockets(Reach):
    """By sockets, whose other ends the processes of the peers hold: `ends` by the peers' names."""

    def __init__(self, ways: RunWays, ends: Mapping[str, socket.socket]) -> None:
        self._ways, self._ends = ways, dict(ends)

    def check(self, consortium: Consortium | None) -> None:
        """Raises `InputError` as `Consortium` does of the home itself and of a peer that must not take part."""
        _check_members(self._ways.home, consortium, self._ends)

    def open(self, attempt: int, consortium: Consortium | None) -> dict[str, Channel]:
        """A channel to each peer."""
        ways, me = self._ways, self._ways.home.name
        keys, binding = peer_keys(ways.home, None), ways.binding(consortium)
        channels = {}
        for peer, end in self._ends.items():
            key = consortium.key_of(peer) if consortium else keys.get(peer)
            handshake = ways.handshake(peer, key, binding, attempt)
            channels[peer] = ways.channel(SealedCarrier(SocketCarrier(end), handshake, me=me, peer=peer))
        return channels

    def close(self) -> None:
        """Close the sockets, where no channel has."""
        for end in self._ends.values():
            end.close()


class ReachByExchange(Reach):
    """By an exchange of the consortium: the one that the job names, or the only one.

    `on_state` is told when the exchange can be reached, and when no longer. A test may set another `address`.
    """

    def __init__(
        self, ways: RunWays, peers: tuple[str, ...], *, exchange: str | None, on_state: Callable[[bool], None]
    ) -> None:
        self._ways, self._peers, self._exchange, self._on_state = ways, peers, exchange, on_state
        self.address: str | None = None  # instead of the roster's
        self._link: Link | None = None

    def check(self, consortium: Consortium | None) -> None:
        """Raises `InputError` ``roster.not_pinned`` for a home that has accepted no roster, and what `Consortium`
        raises of the home itself, of a peer that must not take part, and of an unknown exchange.
        """
        if consortium is None:
            raise InputError("roster.not_pinned", party=self._ways.home.name)
        _check_members(self._ways.home, consortium, self._peers)
        consortium.exchange(self._exchange)

    def open(self, attempt: int, consortium: Consortium | None) -> dict[str, Channel]:
        """Connect, and make a channel to each peer."""
        assert consortium is not None
        ways, me, home = self._ways, self._ways.home.name, self._ways.home
        entry, binding = consortium.exchange(self._exchange), ways.binding(consortium)
        certificates = entry.certificate.encode(), home.tls_certificate(), home.tls_key()
        access = Access(self.address or entry.address, *certificates)
        link = Link(access, me=me, room=room_of(binding), epoch=attempt, on_state=self._on_state)
        self._link = link
        channels = {}
        for peer in self._peers:
            handshake = ways.handshake(peer, consortium.key_of(peer), binding, attempt)
            channels[peer] = ways.channel(ResumingCarrier(link.end(peer), handshake, me=me, peer=peer))
        return channels

    def close(self) -> None:
        """End the connections."""
        if self._link is not None:
            self._link.close()


def _check_members(home: PartyHome, consortium: Consortium | None, peers: Iterable[str]) -> None:
    if consortium is not None:
        consortium.check_self(home)
        for peer in peers:
            consortium.key_of(peer)


def room_of(binding: Binding) -> str:
    """Where an exchange brings the members of one run together: 32 hexadecimal digits, which tell what they are made
    from to whoever guesses it.
    """
    return hashlib.sha256(_ROOM + f"{binding.consortium}\n{binding.run}".encode()).hexdigest()[:32]
