"""Where the attacks take place: homes of a consortium, its exchange as a process, and a way in front that can be bent.

Insurer and lab have a vertical job; clinic is a third member with nothing to do in it. The roster says that the
exchange is where a `Tap` listens, which records what passes and leads to the real exchange or to a hostile one.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isthmus.parties.consortium import pinned
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.link import Access, Link
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.session import Binding, Handshake
from isthmus.parties.network.tls import channel_credentials, channel_options
from isthmus.parties.reach import room_of
from isthmus.parties.roster import Roster
from tests.consortium import Consortium
from tests.parties.cut_proxy import CutProxy
from tests.parties.relay_world import Stream
from tests.vertical_world import VerticalWorld

MEMBERS = ("clinic", "insurer", "lab")
JOB = "ab" * 32


class Tap(CutProxy):
    """A proxy that records what it passes on, while `records`."""

    records = False

    def __init__(self, target: str) -> None:
        self.captured: list[bytes] = []
        super().__init__(target)

    def _read(self, source: Any, chunks: Any) -> None:
        super()._read(source, _Recorded(self, chunks))


class _Recorded:
    def __init__(self, tap: Tap, chunks: Any) -> None:
        self._tap, self._chunks = tap, chunks

    def put(self, item: tuple[float, bytes]) -> None:
        if self._tap.records:
            self._tap.captured.append(item[1])
        self._chunks.put(item)


class Stage:
    """A consortium to attack. Use as a context manager: leaving it ends all that it has started."""

    def __init__(self, persons: int = 60, epochs: int = 2) -> None:
        self._ends = contextlib.ExitStack()
        self.folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="isthmus-attack-")))
        self.world = VerticalWorld(self.folder, persons)
        self.world.job["training"]["epochs"] = epochs
        (self.world.homes / "clinic").mkdir()
        self.world.write_party("clinic", {**self.world.party("lab"), "name": "clinic"})
        for member in MEMBERS:
            self.world.edit_party(member, lambda content: content["policy"].update(peers=list(MEMBERS)))
        self.tap = self._ends.enter_context(Tap("127.0.0.1:1"))
        self.consortium: Consortium
        self._links: list[Link] = []
        self._streams: list[Stream] = []

    def found(self) -> Self:
        """Make the consortium, once the homes are as they are to be."""
        self.consortium = self._ends.enter_context(
            Consortium(self.folder, self.world.job, starter="insurer", connect=self.tap.address)
        )
        self.consortium.members = MEMBERS[1:]  # who joins the job
        self.real = self.consortium.listen
        self.tap.target = ("127.0.0.1", self.consortium.port)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._ends.close()

    def hang_up(self) -> None:
        """End the links and streams that were made here."""
        threads = [threading.Thread(target=link.close) for link in self._links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for stream in self._streams:
            stream.finish()
            stream.call.cancel()
            stream.channel.close()
        self._links, self._streams = [], []

    # --- who is who --------------------------------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        """The roster that the exchange has accepted."""
        found = pinned(self.consortium.exchange_folder)
        assert found is not None
        return found

    def home(self, member: str) -> PartyHome:
        return PartyHome(self.world.homes / member)

    def access(self, member: str, address: str, own: tuple[bytes, bytes] | None = None) -> Access:
        """How a member connects; `own` are another certificate and key."""
        home = self.home(member)
        certificate, key = own or (home.tls_certificate(), home.tls_key())
        return Access(address, self.roster.exchanges["main"].certificate.encode(), certificate, key)

    def link(self, member: str, *, run: str, address: str = "", epoch: int = 1) -> Link:
        """A member's lanes to the exchange (the real one, if no address is given), for one run."""
        room = room_of(Binding("hearts", run))
        link = Link(self.access(member, address or self.real), me=member, room=room, epoch=epoch)
        self._links.append(link)
        return link

    def handshake(self, me: str, peer: str, *, run: str, signs: Ed25519PrivateKey | None = None, **changes: Any) -> Any:
        """A member's handshake, by its own key or by a stolen name's."""
        identity = Identity(self.home(me))
        sign, public = identity.sign, identity.public
        if signs is not None:
            sign, public = signs.sign, signs.public_key().public_bytes_raw()
        says = {"binding": Binding("hearts", run), "attempt": 1, "job": JOB}
        says["peer_key"] = self.roster.members[peer].public
        return Handshake(sign, public, me=me, peer=peer, **(says | changes))

    def carrier(self, link: Link, me: str, peer: str, *, run: str, **changes: Any) -> ResumingCarrier:
        return ResumingCarrier(link.end(peer), self.handshake(me, peer, run=run, **changes), me=me, peer=peer)

    def channel(
        self, me: str, peer: str, *, run: str, address: str = "", timeout_s: float = 10.0, **changes: Any
    ) -> Channel:
        """One end of the way between two members, as a vault has it."""
        carrier = self.carrier(self.link(me, run=run, address=address), me, peer, run=run, **changes)
        return Channel(carrier, me=me, peer=peer, log=CountingLog(), timeout_s=timeout_s)

    def stream(
        self,
        member: str,
        *,
        run: str,
        lane: str = "bulk",
        epoch: int = 1,
        address: str = "",
        own: tuple[bytes, bytes] | None = None,
        reads: bool = True,
        options: tuple[tuple[str, int], ...] = (),
    ) -> Stream:
        """A bare stream of a member: what a member writes who keeps to no rule."""
        access = self.access(member, address or self.real, own)
        credentials = channel_credentials(access.exchange_certificate, access.certificate, access.key)
        channel = grpc.secure_channel(access.address, credentials, (*channel_options(), *options))
        room = room_of(Binding("hearts", run))
        said = {"version": "1", "room": room, "lane": lane, "epoch": str(epoch)}
        stream = Stream(channel, tuple((f"isthmus-{key}", value) for key, value in said.items()), reads=reads)
        self._streams.append(stream)
        return stream
