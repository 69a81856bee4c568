"""Masked sums in one process: a thread a party, channels over memory, real homes, and a record of every frame."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from isthmus.horizontal.fixed_point import FLOAT32, Encoding
from isthmus.horizontal.members import Members
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.summing import Gathered, Sum
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.message import Message, Step, Topic
from isthmus.parties.state import State

from ...kept_open import kept_open, make_state
from ...recording import RecordingCarrier, recording_pair

COORDINATOR = "coordinator"
NAMES = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty")
JOB = "1" * 64
TOPIC = Topic.TRAIN
TIMEOUT_S = 30.0


class Stopped(Exception):
    """A party was killed."""


class WatchedChannel(Channel):
    """A channel on which something can happen before a step is sent: a kill, or another message in its place."""

    before: Callable[[Step, dict[str, Any]], None] | None = None

    def send(self, topic: Topic, step: Step, fields: Any = None, arrays: Any = None) -> None:
        fields = dict(fields or {})
        if self.before is not None:
            self.before(step, fields)
        super().send(topic, step, fields, arrays)


def stop_before(*steps: Step) -> Callable[[Step, dict[str, Any]], None]:
    """Kill the sender before it sends one of these steps."""

    def before(step: Step, fields: dict[str, Any]) -> None:
        if step in steps:
            raise Stopped

    return before


Values = Mapping[str, np.ndarray[Any, Any]]


@dataclass
class Session:
    """One attempt of a job: channels, the coordinator's side, and a thread a party that answers until it is told to."""

    world: World
    attempt: int
    before: Mapping[str, Callable[[Step, dict[str, Any]], None]]
    values: dict[int, Values] = field(default_factory=dict)
    offers: dict[int, tuple[Sum, Encoding, Mapping[str, str]]] = field(default_factory=dict)
    ends: dict[str, BaseException | None] = field(default_factory=dict)
    carriers: dict[str, RecordingCarrier] = field(default_factory=dict)  # of the parties
    givings: dict[str, SecureGiving] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.channels: dict[str, WatchedChannel] = {}
        self.gathering = SecureGathering(self.world.folder / COORDINATOR, party=COORDINATOR)
        self._threads = []
        for name in self.world.names:
            left, right = recording_pair()
            self.carriers[name] = right
            self.channels[name] = WatchedChannel(
                left, me=COORDINATOR, peer=name, log=CountingLog(), timeout_s=TIMEOUT_S
            )
            theirs = WatchedChannel(right, me=name, peer=COORDINATOR, log=CountingLog(), timeout_s=TIMEOUT_S)
            theirs.before = self.before.get(name)
            self._threads.append(threading.Thread(target=self._party, args=(name, theirs), daemon=True))
        self.members = Members(self.channels)
        for thread in self._threads:
            thread.start()

    def _party(self, name: str, channel: Channel) -> None:
        giving = self.givings[name] = self.world.giving(name, channel)
        try:
            while (order := channel.receive(TOPIC, Step.ROUND, Step.RESULT, *giving.steps)).step is not Step.RESULT:
                if order.step is Step.ROUND:
                    one, encoding, data = self.offers[order.fields["sum"]]
                    giving.offer(one, self.values[one.number][name], encoding, data=data.get(name, ""))
                else:
                    giving.handle(order)
            self.ends[name] = None
        except BaseException as failure:
            self.ends[name] = failure
        finally:
            channel.close()

    def ask(
        self,
        values: Values,
        *,
        number: int = 1,
        content: str = "",
        parties: Sequence[str] | None = None,
        encoding: Encoding = FLOAT32,
        strict: bool = True,
        data: Mapping[str, str] | None = None,
        job: str = JOB,
    ) -> Sum:
        """Send the request for a sum."""
        asked = tuple(parties or self.world.names)
        one = Sum(job, self.attempt, number, content or self.world.content, asked, strict)
        self.values[number], self.offers[number] = values, (one, encoding, data or {})
        self.members.tell(asked, TOPIC, Step.ROUND, number)
        return one

    def sum(self, values: Values, *, deadline_s: float = TIMEOUT_S, fewest: int = 1, **options: Any) -> Gathered:
        """Ask for a sum and gather it."""
        one = self.ask(values, **options)
        encoding = options.get("encoding", FLOAT32)
        size = len(next(iter(values.values())))
        return self.gathering.gather(self.members, TOPIC, one, size, encoding, deadline_s=deadline_s, fewest=fewest)

    def close(self) -> dict[str, BaseException | None]:
        """Tell the parties that this was all, and see how each ended."""
        self.members.tell(self.members.names, TOPIC, Step.RESULT, 10**6, answer=False)
        return self.end()

    def end(self) -> dict[str, BaseException | None]:
        """The coordinator is gone; so are, then, the parties."""
        for channel in self.channels.values():
            channel.close()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return self.ends

    def received(self, name: str, step: Step) -> list[Message]:
        """What the coordinator was sent by a party."""
        messages = self.carriers[name].messages()
        return [message for message in messages if message.step is step]


class World:
    """Parties with homes and keys, and one run folder each."""

    def __init__(self, homes: Mapping[str, PartyHome], folder: Path, content: str) -> None:
        self.homes, self.folder, self.content = homes, folder, content
        self.names = tuple(homes)
        self.identities = {name: Identity(home) for name, home in homes.items()}
        self.keys = {name: identity.public for name, identity in self.identities.items()}
        self._open: list[Session] = []

    def memory(self, name: str, run: str = "run") -> SumMemory:
        return SumMemory(self.folder / name / run, State(self.homes[name]), party=name)

    def giving(self, name: str, channel: Channel) -> SecureGiving:
        return SecureGiving(channel, TOPIC, self.identities[name], self.keys, self.memory(name))

    def session(
        self, attempt: int = 1, before: Mapping[str, Callable[[Step, dict[str, Any]], None]] | None = None
    ) -> Session:
        self._open.append(Session(self, attempt, before or {}))
        return self._open[-1]

    def values(self, size: int = 5, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
        """Numbers of either sign whose sum stays within every encoding."""
        generator = np.random.default_rng(seed)
        return {name: generator.uniform(-5, 5, size) for name in self.names}

    def close(self) -> None:
        for session in self._open:
            session.end()


def _homes(folder: Path, names: Sequence[str]) -> dict[str, PartyHome]:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "party.yaml").write_text(yaml.safe_dump({"name": name}))
    return {name: PartyHome(folder / name) for name in names}


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PartyHome]]:
    """Ten homes: making their state takes longer than a sum, and so does opening it."""
    made = _homes(tmp_path_factory.mktemp("homes"), NAMES)
    for home in made.values():
        make_state(home.folder)
    with kept_open(home.folder for home in made.values()):
        yield made


@pytest.fixture
def make_world(
    homes: dict[str, PartyHome], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[int], World]]:
    """Make a world of so many parties; what it sums up has a content of its own."""
    worlds: list[World] = []

    def make(count: int) -> World:
        content = hashlib.sha256(f"{request.node.nodeid} {len(worlds)}".encode()).hexdigest()
        worlds.append(World({name: homes[name] for name in NAMES[:count]}, tmp_path / str(len(worlds)), content))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def kill() -> Callable[..., Callable[[Step, dict[str, Any]], None]]:
    """Kill the sender before it sends one of these steps."""
    return stop_before
