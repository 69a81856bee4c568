"""What survives a kill in the middle of a masked sum: the shares that a party holds, and the sum that C has added up.

Each is one file of a run folder, for each topic: ``secagg-train.json`` at a party (0600: it holds others' shares), and
``secagg-train.safetensors`` at the coordinator. A party's lies there until its next sum of that topic begins, the
coordinator's until it gathers the next one. Either is whole or not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..parties.checkpoint import read_tensors, write_tensors
from ..parties.errors import disk_errors
from ..parties.files import PRIVATE, drop_partials, write_whole
from ..parties.network.message import Array, Topic
from .secagg import PublicKeys, digest
from .summing import Sum


class Releases(Protocol):
    """The party's memory over all jobs: `parties.state.State`."""

    def released(self) -> set[str]:
        """The contents of all sums that this party ever helped to unmask."""

    def note_release(self, content: str, one: str, survivors: str, *, strict: bool) -> bool:
        """Note that it is about to; False if it must not."""


@dataclass(frozen=True)
class HeldSum:
    """What a party knows of one sum once it has its inbox. Names are in the order of the parties asked."""

    one: bytes  # the sum's digest
    content: str  # what releases are noted under
    strict: bool
    asked: tuple[str, ...]
    roster: bytes  # the digest of U1's keys
    dealt: tuple[str, ...]  # U2
    seeds: Mapping[str, bytes]  # this party's share of each one's seed
    keys: Mapping[str, bytes]  # and of each one's masking key
    survivors: tuple[str, ...] | None = None  # U3, once signed

    def signed(self, survivors: tuple[str, ...]) -> HeldSum:
        """The same with U3."""
        return replace(self, survivors=survivors)


class SumMemory:
    """A party's memory of the sum it takes part in, in `folder` (of the run), and of those it gave in `releases`.

    Raises `InputError` ``disk.full`` and ``disk.denied``.
    """

    def __init__(self, folder: Path, releases: Releases, *, party: str) -> None:
        self._folder, self._releases, self._party = folder, releases, party
        self._given: set[str] | None = None

    def hold(self, topic: Topic, held: HeldSum) -> None:
        """Write it down, for the owner alone to read."""
        content = json.dumps(_to_json(held)).encode()
        write_whole(self._path(topic), content, party=self._party, mode=PRIVATE)

    def held(self, topic: Topic) -> HeldSum | None:
        """What was written last, if it is still there."""
        path = self._path(topic)
        with disk_errors(self._party):
            return _from_json(json.loads(path.read_text())) if path.exists() else None

    def forget(self, topic: Topic) -> None:
        """Erase it: another sum begins, or the run is closed."""
        drop_partials(self._folder, self._path(topic).name, party=self._party)
        with disk_errors(self._party):
            self._path(topic).unlink(missing_ok=True)

    def was_given(self, content: str) -> bool:
        """Whether this party helped to unmask this content before, in whatever job.

        They are read once. What another job of this party gives meanwhile is seen by `may_give`, which decides.
        """
        if self._given is None:
            self._given = self._releases.released()
        return content in self._given

    def may_give(self, held: HeldSum) -> bool:
        """Note that the shares of a sum are about to leave; False if they must not."""
        survivors = digest("survivors", *(held.survivors or ())).hex()
        allowed = self._releases.note_release(held.content, held.one.hex(), survivors, strict=held.strict)
        if self._given is not None:
            self._given.add(held.content)
        return allowed

    def _path(self, topic: Topic) -> Path:
        return self._folder / f"secagg-{topic}.json"


@dataclass(frozen=True)
class Pending:
    """A masked sum that C has added up and not yet unmasked."""

    one: Sum
    size: int
    encoding: str
    roster: Mapping[str, PublicKeys]  # U1
    dealt: tuple[str, ...]  # U2
    survivors: tuple[str, ...]  # U3
    words: Array


class PendingFile:
    """Where C keeps it, in `folder` (of the run).

    Raises `InputError` ``disk.full`` and ``disk.denied``.
    """

    def __init__(self, folder: Path, *, party: str) -> None:
        self._folder, self._party = folder, party

    def write(self, topic: Topic, pending: Pending) -> None:
        """Write it down before anyone is asked to unmask."""
        meta = {
            "sum": asdict(pending.one),
            "size": pending.size,
            "encoding": pending.encoding,
            "roster": {name: [key.hex() for key in keys] for name, keys in pending.roster.items()},
            "dealt": pending.dealt,
            "survivors": pending.survivors,
        }
        write_tensors(self._path(topic), {"words": pending.words}, meta, party=self._party)

    def read(self, topic: Topic) -> Pending | None:
        """What was written last, if it is still there."""
        path = self._path(topic)
        if not path.exists():
            return None
        arrays, meta = read_tensors(path)
        one = meta["sum"]
        return Pending(
            Sum(**{**one, "parties": tuple(one["parties"])}),
            meta["size"],
            meta["encoding"],
            {name: PublicKeys(*map(bytes.fromhex, keys)) for name, keys in meta["roster"].items()},
            tuple(meta["dealt"]),
            tuple(meta["survivors"]),
            arrays["words"],
        )

    def erase(self, topic: Topic) -> None:
        """Erase it: its sum is in a checkpoint, or will never be wanted."""
        drop_partials(self._folder, self._path(topic).name, party=self._party)
        with disk_errors(self._party):
            self._path(topic).unlink(missing_ok=True)

    def _path(self, topic: Topic) -> Path:
        return self._folder / f"secagg-{topic}.safetensors"


def _to_json(held: HeldSum) -> dict[str, Any]:
    shares = {name: [held.seeds[name].hex(), held.keys[name].hex()] for name in held.dealt}
    names = {"asked": held.asked, "dealt": held.dealt, "survivors": held.survivors}
    fixed = {"one": held.one.hex(), "content": held.content, "strict": held.strict, "roster": held.roster.hex()}
    return {**fixed, **names, "shares": shares}


def _from_json(content: dict[str, Any]) -> HeldSum:
    shares = {name: tuple(map(bytes.fromhex, pair)) for name, pair in content["shares"].items()}
    return HeldSum(
        bytes.fromhex(content["one"]),
        content["content"],
        content["strict"],
        tuple(content["asked"]),
        bytes.fromhex(content["roster"]),
        tuple(content["dealt"]),
        {name: pair[0] for name, pair in shares.items()},
        {name: pair[1] for name, pair in shares.items()},
        None if content["survivors"] is None else tuple(content["survivors"]),
    )
