"""A hostile exchange: it has the exchange's own certificate and key, so TLS is no obstacle to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

from stage import Stage

from isthmus.parties.consortium import pinned
from isthmus.parties.network.admission import Admitted
from isthmus.parties.network.exchange import Exchange
from isthmus.parties.network.frame import NAME_NBYTES

_DESTINATION = slice(8, 8 + NAME_NBYTES)


@dataclass(frozen=True)
class Seen:
    """A frame on its way: where it came, or is to be written, and after how many seconds."""

    room: str
    lane: str
    frame: bytes
    after_s: float = 0.0

    def but(self, **changes: Any) -> Seen:
        return replace(self, **changes)


Script = Callable[[Seen], Iterable[Seen]]


def honest(seen: Seen) -> Iterable[Seen]:
    """Pass on what comes."""
    return [seen]


class Relay(Exchange):
    """The exchange, but that it checks no frame, and does with each what its script says."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.script: Script = honest
        self.scripts: dict[str, Script] = {}  # by room
        self.recorded: list[Seen] = []

    async def _read(self, connection: Any, context: Any) -> None:
        while True:
            frame = await context.read()
            if not isinstance(frame, bytes) or not connection.is_open():
                return
            seen = Seen(connection.room, connection.lane, frame)
            self.recorded.append(seen)
            for each in self.scripts.get(seen.room, self.script)(seen):
                self.write(each)

    def write(self, seen: Seen, to: str | None = None) -> None:
        """Write a frame to whomever it names, or to somebody else. In the loop's thread."""
        if seen.after_s:
            asyncio.get_running_loop().call_later(seen.after_s, self.write, seen.but(after_s=0.0), to)
            return
        name = seen.frame[_DESTINATION] if to is None else to.encode().ljust(NAME_NBYTES, b"\0")
        receiver = self._routes.get((seen.room, seen.lane), {}).get(name)
        if receiver is not None:
            receiver.put(seen.frame)


class Hostile:
    """A hostile exchange in a thread. `relay` is it. Use as a context manager."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        folder = self._stage.consortium.exchange_folder
        roster = pinned(folder)
        assert roster is not None
        admitted = Admitted({name: member.certificate.encode() for name, member in roster.members.items()})
        keys = {"certificate": (folder / "tls.crt").read_bytes(), "key": (folder / "tls.key").read_bytes()}

        async def started() -> int:
            self.relay = Relay(listen="127.0.0.1:0", admitted=lambda: admitted, **keys)
            return await self.relay.start()

        self.address = f"127.0.0.1:{self._await(started())}"
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self.relay.stop(0.2))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def write(self, seen: Seen, to: str | None = None) -> None:
        """Write a frame from any thread."""
        self._loop.call_soon_threadsafe(self.relay.write, seen, to)

    def forget(self) -> list[Seen]:
        """What was recorded so far."""
        recorded, self.relay.recorded = self.relay.recorded, []
        return recorded

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
