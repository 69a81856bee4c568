"""The ledger: what left this party for its peers, for which job. (What its flow is told is in the run's report.)

A channel writes one entry before the first byte of every topic and one when it closes, with the bytes and a keyed
digest of all that was sent. Each entry is chained to the one before by an HMAC under the home's `ledger.key`.

Adversary: someone who can change `state.duckdb` but can neither read nor replace `ledger.key` cannot change, drop or
insert an entry unnoticed. Cutting off the newest entries, or all of them, shows only to someone who noted the head (a
run's report holds it); so does a whole new chain under a new key. A chain whose key is gone cannot be verified, nor
continued: nothing leaves until both files were put aside.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from .errors import InternalError
from .home import PartyHome
from .network.channel import Stream
from .network.message import Buffer, Topic
from .state import State

_START = "0" * 64


class Entry(BaseModel):
    """One row of the chain. An `open` entry without its `close` was cut off in mid-stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    event: Literal["open", "close"]
    run: str
    job: str
    peer: str
    topic: Topic
    nbytes: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Verdict:
    """A verified chain: how many entries, and the head to note down elsewhere."""

    entries: int
    head: str


class Ledger:
    """The chain of one party.

    Raises `InternalError` ``ledger.broken`` where there are entries but no key.
    """

    def __init__(self, home: PartyHome) -> None:
        self._party, self._state = home.name, State(home)
        if not home.has_ledger_key() and self._rows():
            raise InternalError("ledger.broken", party=home.name, entry=1, detail="ledger.key is gone")
        self._key = home.ledger_key()

    def append(self, *entries: Entry) -> None:
        """Write entries, all or none, or raise; only then may bytes leave."""
        with self._state.transaction() as connection:
            last = connection.execute("SELECT entry_number, mac FROM ledger ORDER BY 1 DESC LIMIT 1").fetchone()
            number, mac = last or (0, _START)
            for entry in entries:
                text = json.dumps(entry.model_dump(mode="json"), sort_keys=True)
                number, mac = number + 1, self._mac(number + 1, mac, text)
                connection.execute("INSERT INTO ledger VALUES (?, ?, ?)", [number, text, mac])

    def entries(self, run: str | None = None) -> list[Entry]:
        """All entries, oldest first, of one run or of all."""
        found = [Entry.model_validate_json(text) for _, text, _ in self._rows()]
        return [entry for entry in found if run is None or entry.run == run]

    def verify(self) -> Verdict:
        """Recompute the chain; raises `InternalError` ``ledger.broken`` at the first entry that does not fit."""
        previous, count = _START, 0
        for number, text, mac in self._rows():
            count += 1
            if number != count or not hmac.compare_digest(mac, self._mac(count, previous, text)):
                raise InternalError("ledger.broken", party=self._party, entry=count)
            previous = mac
        return Verdict(count, previous)

    def job(self, run: str, job_digest: str) -> JobLog:
        """The `StreamLog` that a job's channels write to."""
        return JobLog(self, run, job_digest)

    def _rows(self) -> list[tuple[Any, ...]]:
        with self._state.transaction() as connection:
            return connection.execute("SELECT entry_number, entry, mac FROM ledger ORDER BY 1").fetchall()

    def _mac(self, number: int, previous: str, text: str) -> str:
        return hmac.new(self._key, f"{number}\n{previous}\n{text}".encode(), hashlib.sha256).hexdigest()

    def keyed_digest(self) -> hmac.HMAC:
        """A digest of bytes that only this party can check: unkeyed, it would confirm a guess of what was sent."""
        return hmac.new(self._key, b"stream\n", hashlib.sha256)


@dataclass(frozen=True)
class JobLog:
    """The ledger as the channels of one job see it (`parties.network.channel.StreamLog`)."""

    ledger: Ledger
    run: str
    job: str

    def open(self, peer: str, topic: Topic) -> _OpenStream:
        """Write the entry that must be there before anything leaves."""
        self.ledger.append(self.entry("open", peer, topic))
        return _OpenStream(self, peer, topic)

    def close(self, streams: Sequence[Stream]) -> None:
        """Write the ends of streams that `open` gave."""
        self.ledger.append(*(stream.end() for stream in streams if isinstance(stream, _OpenStream)))

    def entry(
        self, event: Literal["open", "close"], peer: str, topic: Topic, nbytes: int = 0, digest: str = ""
    ) -> Entry:
        """An entry of this job, stamped now in UTC."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Entry(
            at=now, event=event, run=self.run, job=self.job, peer=peer, topic=topic, nbytes=nbytes, digest=digest
        )


class _OpenStream:
    def __init__(self, log: JobLog, peer: str, topic: Topic) -> None:
        self._log, self._peer, self._topic = log, peer, topic
        self._digest, self._nbytes = log.ledger.keyed_digest(), 0

    def add(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            self._digest.update(buffer)
            self._nbytes += len(buffer)

    def end(self) -> Entry:
        return self._log.entry("close", self._peer, self._topic, self._nbytes, self._digest.hexdigest())
