"""Rounds in one process: a thread a party and one for the coordinator, over memory, with a record of every frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from isthmus.horizontal.course import OnRound
from isthmus.horizontal.local import OnBatch
from isthmus.horizontal.members import Members
from isthmus.horizontal.participant import PartyOutcome, join_rounds
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.rounds import RoundsOutcome, coordinate_rounds
from isthmus.horizontal.secagg_coordinator import SecureGathering
from isthmus.horizontal.secagg_memory import SumMemory
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.horizontal.summing import Gathering, Giving
from isthmus.horizontal.tabular import PrivateDropout, linear, private_generator
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.home import PartyHome
from isthmus.parties.identity import Identity
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.state import State

from ...kept_open import kept_open, make_state
from ...recording import RecordingCarrier, recording_pair

JOB, COORDINATOR, TIMEOUT_S = "1" * 64, "coordinator", 20.0
Values = np.ndarray[Any, np.dtype[np.float32]]


class Killed(Exception):
    """A side was killed."""


class WatchedChannel(Channel):
    """A channel on which something can happen before a message is sent."""

    before: Callable[[Step, dict[str, Any]], None] | None = None

    def send(self, topic: Topic, step: Step, fields: Any = None, arrays: Any = None) -> None:
        if self.before is not None:
            self.before(step, dict(fields or {}))
        super().send(topic, step, fields, arrays)


Before = Callable[[Step, dict[str, Any]], None]


def kill_before(step: Step, count: int = 1) -> Before:
    """Kill the sender before it sends such a message for the `count`-th time."""
    seen = iter(range(1, 10**6))

    def before(sent: Step, fields: dict[str, Any]) -> None:
        if sent is step and next(seen) == count:
            raise Killed

    return before


class Rows:
    """A `LocalProblem`: mean squared error of a module over rows ``(rows, columns)``; the score is minus the loss."""

    def __init__(self, module: nn.Module, inputs: Values, target: Values, held_out: int = 0) -> None:
        self.module, self.train_rows = module, len(inputs) - held_out
        self._inputs, self._target = torch.from_numpy(inputs), torch.from_numpy(target)
        self.rounds: list[int] = []

    def loss(self, index: Tensor) -> Tensor:
        return mse_loss(self.module(self._inputs[index]).squeeze(1), self._target[index])

    def validation(self) -> Validation:
        rows = len(self._inputs) - self.train_rows
        if not rows:
            return Validation(0, 0.0, 0.0, 0)
        self.module.eval()
        with torch.no_grad():
            loss = self.loss(torch.arange(self.train_rows, len(self._inputs))).item()
        return Validation(rows, loss, -loss, rows)

    def reseed(self, round: int) -> None:
        self.rounds.append(round)
        for part in self.module.modules():
            if isinstance(part, PrivateDropout):
                part.generator.set_state(private_generator(5, f"round {round}").get_state())


def network(seed: int, *, columns: int = 3, batch_norm: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """A small network with weights of its own."""
    weights = private_generator(seed, "weights")
    middle: list[nn.Module] = [nn.BatchNorm1d(4)] if batch_norm else []
    layers = [
        linear(columns, 4, weights),
        *middle,
        nn.ReLU(),
        PrivateDropout(dropout, private_generator(seed, "noise")),
    ]
    return nn.Sequential(*layers, linear(4, 1, weights))


@dataclass
class World:
    """Parties with their problems, a plan, and a folder for checkpoints."""

    problems: Mapping[str, Any]
    plan: RoundsPlan
    folder: Path
    initial: Values
    outcomes: dict[str, PartyOutcome | BaseException] = field(default_factory=dict)
    carriers: dict[str, tuple[RecordingCarrier, RecordingCarrier]] = field(default_factory=dict)  # C's end, k's end
    _homes: dict[str, PartyHome] = field(default_factory=dict)

    @property
    def parties(self) -> tuple[str, ...]:
        return tuple(self.problems)

    @property
    def result(self) -> RoundsOutcome:
        outcome = self.outcomes[COORDINATOR]
        assert isinstance(outcome, RoundsOutcome), repr(outcome)
        return outcome

    def _giving(self, name: str, channel: Channel) -> SecureGiving:
        """With masks: every party has a home with a key and a state of its own."""
        for one in self.parties:
            if one not in self._homes:
                home = self.folder / "homes" / one
                home.mkdir(parents=True, exist_ok=True)
                (home / "party.yaml").write_text(yaml.safe_dump({"name": one}))
                make_state(home)
                self._homes[one] = PartyHome(home)
        keys = {one: Identity(home).public for one, home in self._homes.items()}
        home = self._homes[name]
        memory = SumMemory(self.folder / name, State(home), party=name)
        return SecureGiving(channel, Topic.TRAIN, Identity(home), keys, memory)

    def weights(self, name: str) -> dict[str, bytes]:
        """All tensors of a party's module, private ones included."""
        return {key: value.numpy().tobytes() for key, value in self.problems[name].module.state_dict().items()}

    def count(self, name: str, step: Step) -> int:
        """How many messages of a step a party has sent."""
        return sum(message.step is step for message in self.carriers[name][1].messages())

    def failure(self, who: str) -> BaseException:
        outcome = self.outcomes[who]
        assert isinstance(outcome, BaseException), repr(outcome)
        return outcome

    def run(
        self,
        *,
        attempt: int = 1,
        on_round: OnRound | None = None,
        on_batch: Mapping[str, OnBatch] | None = None,
        giving: Callable[[str, Channel], Giving] | None = None,
        gathering: Gathering | None = None,
        instead: Mapping[str, Callable[[Channel], Any]] | None = None,
        plans: Mapping[str, RoundsPlan] | None = None,
        jobs: Mapping[str, str] | None = None,
        before: Mapping[str, Before] | None = None,
        secure: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> World:
        """Run all sides. One that fails closes its channels, as a vault does; `instead` runs in a party's place."""
        self.outcomes, self.carriers = {}, {}
        ours: dict[str, WatchedChannel] = {}
        theirs: dict[str, WatchedChannel] = {}
        for name in self.parties:
            left, right = recording_pair()
            self.carriers[name] = left, right
            options: dict[str, Any] = {"log": CountingLog(), "timeout_s": timeout_s}
            ours[name] = WatchedChannel(left, me=COORDINATOR, peer=name, **options)
            theirs[name] = WatchedChannel(right, me=name, peer=COORDINATOR, **options)
            ours[name].before, theirs[name].before = (before or {}).get(COORDINATOR), (before or {}).get(name)
        if secure:
            giving, gathering = self._giving, SecureGathering(self.folder / COORDINATOR, party=COORDINATOR)
        first = next(iter(self.problems.values()))
        layout = self.plan.scope.layout(first.module)

        givings = {name: giving(name, channel) for name, channel in theirs.items()} if giving else {}

        def party(name: str) -> Any:
            if instead and name in instead:
                return instead[name](theirs[name])
            return join_rounds(
                theirs[name],
                self.problems[name],
                (plans or {}).get(name, self.plan),
                parties=self.parties,
                job_digest=(jobs or {}).get(name, JOB),
                attempt=attempt,
                checkpoints=Checkpoints(self.folder / name, party=name),
                giving=givings.get(name),
                on_batch=(on_batch or {}).get(name),
            )

        def coordinator() -> RoundsOutcome:
            return coordinate_rounds(
                Members(ours),
                self.plan,
                self.initial,
                layout,
                coordinator=COORDINATOR,
                parties=self.parties,
                job_digest=JOB,
                attempt=attempt,
                checkpoints=Checkpoints(self.folder / COORDINATOR, party=COORDINATOR),
                gathering=gathering,
                on_round=on_round,
            )

        def side(who: str, work: Callable[[], Any], channels: Sequence[Channel]) -> None:
            try:
                self.outcomes[who] = work()
            except BaseException as failure:
                self.outcomes[who] = failure
                for channel in channels:
                    channel.close()

        sides = [threading.Thread(target=side, args=(COORDINATOR, coordinator, list(ours.values())), daemon=True)]
        for name in self.parties:
            work = lambda name=name: party(name)  # noqa: E731
            sides.append(threading.Thread(target=side, args=(name, work, [theirs[name]]), daemon=True))
        with kept_open(home.folder for home in self._homes.values()):
            for thread in sides:
                thread.start()
            for thread in sides:
                thread.join(60)
                assert not thread.is_alive(), "a side hangs"
        for channel in (*ours.values(), *theirs.values()):
            channel.close()
        return self


def _make_world(
    folder: Path,
    plan: RoundsPlan,
    *,
    sizes: Sequence[int] = (20, 12, 30),
    held_out: int = 4,
    module: Callable[[int], nn.Module] = network,
    seed: int = 1,
) -> World:
    """Parties of `sizes` training rows and `held_out` validation rows; each has a module with weights of its own."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=3)
    problems = {}
    for place, size in enumerate(sizes):
        inputs = generator.normal(size=(size + held_out, 3)) + 0.3 * place
        target = inputs @ weights + 0.1 * generator.normal(size=size + held_out)
        problems[f"p{place}"] = Rows(module(place + 1), inputs.astype("f4"), target.astype("f4"), held_out)
    first = module(99)
    shared = plan.scope.split(first)[0]
    return World(problems, plan, folder, plan.scope.layout(first).flatten(shared))


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    """The first optimiser of a process imports for seconds, which is not to be taken for a party's being late."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], fused=True).step()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a vault: one thread adds up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    def make(plan: RoundsPlan, name: str = "world", **options: Any) -> World:
        return _make_world(tmp_path / name, plan, **options)

    return make


@pytest.fixture
def make_network() -> Callable[..., nn.Sequential]:
    return network


@pytest.fixture
def kill() -> Callable[..., Before]:
    return kill_before


@pytest.fixture
def rows_problem() -> type[Rows]:
    return Rows
