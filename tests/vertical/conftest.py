"""Split training in one process: a thread a party, channels over memory, and a record of every frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.table import Column
from isthmus.vertical import (
    ActivePart,
    CentralModel,
    PassivePart,
    SplitPlan,
    score_active,
    score_passive,
    split_rows,
    train_active,
    train_central,
    train_passive,
)
from isthmus.vertical.models import Trunk
from isthmus.vertical.training import OnEpoch

from ..recording import recording_pair

JOB, ALIGNMENT = "1" * 64, "2" * 64
TIMEOUT_S = 20.0
SEEDS = {"insurer": 11, "lab": 12, "clinic": 13}


@dataclass(frozen=True)
class Case:
    """Columns of every party over the same rows, the insurer's label, and a plan."""

    tables: Mapping[str, Sequence[Column]]
    label: np.ndarray[Any, np.dtype[np.float32]]
    plan: SplitPlan

    @property
    def passive(self) -> list[str]:
        return [party for party in self.tables if party != "insurer"]

    def with_plan(self, **changes: Any) -> Case:
        return replace(self, plan=replace(self.plan, **changes))

    def central(self, **options: Any) -> CentralModel:
        """The same network trained in one place."""
        plan = self.plan
        parts = split_rows(len(self.label), plan.validation_share, plan.test_share, plan.seed, ALIGNMENT)
        options = {"active": "insurer", "private_seeds": SEEDS, "parts": parts, **options}
        return train_central(self.tables, self.label, plan, **options)


@dataclass
class Outcome:
    """What each party ended with: its part of the model, or the exception that stopped it."""

    parts: dict[str, Any]
    scores: np.ndarray[Any, Any] | None
    frames: list[bytes]

    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """All weights of all parts."""
        found = {}
        for party, part in self.parts.items():
            assert isinstance(part, ActivePart | PassivePart), f"{party}: {part!r}"
            for name, value in part.model.state_dict().items():
                found[f"{party}.{name}"] = value.numpy()
        return found


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a vault: one thread adds up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _make_case(*passive: str, own: bool = True, rows: int = 240, **plan: Any) -> Case:
    """A label that depends on two columns of every party, with missing values, categories and an embedding."""
    generator = np.random.default_rng(3)
    logits = np.zeros(rows)
    tables: dict[str, list[Column]] = {}
    for party in ("insurer", *passive):
        first, second = generator.normal(size=(2, rows))
        logits += 1.5 * first - second
        gaps = np.where(generator.random(rows) < 0.1, np.nan, first)
        ward = np.array(["a" if value < -0.5 else None if value < 0 else "c" for value in second], dtype=object)
        code = np.array([f"{value:02d}" for value in generator.integers(0, 25, rows)], dtype=object)
        tables[party] = [Column("x", "number", gaps), Column("y", "number", second)]
        tables[party] += [Column("residence", "category", ward), Column("code", "category", code)]
    if not own:
        tables["insurer"] = []
    label = (logits + 0.5 * generator.normal(size=rows) > 0).astype(np.float32)
    chosen = {"bottom": (8, 4), "top": (4,), "dropout": 0.2, "epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    return Case(tables, label, SplitPlan(**{**chosen, "patience": 3, **plan}))


def _run_split(
    case: Case,
    folder: Path,
    *,
    on_epoch: Mapping[str, OnEpoch] | None = None,
    checkpoints: Mapping[str, Checkpoints] | None = None,
    plans: Mapping[str, SplitPlan] | None = None,
    jobs: Mapping[str, str] | None = None,
    alignments: Mapping[str, str] | None = None,
    seeds: Mapping[str, int] = SEEDS,
    trunks: Mapping[str, Trunk] | None = None,
) -> Outcome:
    """Train and score all rows, a thread a party. A party that fails closes its channels, as a vault does."""
    ends = {party: recording_pair() for party in case.passive}
    channels: dict[str, dict[str, Channel]] = {"insurer": {}}
    for party, (ours, theirs) in ends.items():
        log, limit = CountingLog(), {"timeout_s": TIMEOUT_S}
        channels["insurer"][party] = Channel(ours, me="insurer", peer=party, log=log, **limit)
        channels[party] = {"insurer": Channel(theirs, me=party, peer="insurer", log=log, **limit)}
    outcome = Outcome({}, None, [])
    everything = np.arange(len(case.label))

    def one(party: str) -> None:
        options: dict[str, Any] = {
            "party": party,
            "job_digest": (jobs or {}).get(party, JOB),
            "alignment_digest": (alignments or {}).get(party, ALIGNMENT),
            "private_seed": seeds[party],
            "checkpoints": (checkpoints or {}).get(party) or Checkpoints(folder / party, party=party),
            "on_epoch": (on_epoch or {}).get(party),
        }
        plan, columns = (plans or {}).get(party, case.plan), case.tables[party]
        try:
            if party == "insurer":
                part = train_active(channels[party], columns, case.label, plan, **options)
                outcome.scores = score_active(channels[party], part, everything)
                outcome.parts[party] = part
            else:
                (channel,) = channels[party].values()
                passive_part = train_passive(channel, columns, plan, **options, trunk=(trunks or {}).get(party))
                score_passive(channel, passive_part, everything)
                outcome.parts[party] = passive_part
        except Exception as failure:
            outcome.parts[party] = failure
            for channel in channels[party].values():
                channel.close()

    _run_threads([lambda party=party: one(party) for party in case.tables])
    for mine in channels.values():
        for channel in mine.values():
            channel.close()
    outcome.frames = [frame for pair in ends.values() for end in pair for frame in end.frames]
    return outcome


def _run_threads(sides: Sequence[Callable[[], None]]) -> None:
    """Run all sides at once; fail if one hangs."""
    threads = [threading.Thread(target=side, daemon=True) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a side hangs"


def _assert_same(found: Mapping[str, np.ndarray[Any, Any]], wanted: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.dtype == found[name].dtype == np.float32, name
        assert found[name].tobytes() == value.tobytes(), name


@pytest.fixture
def make_case() -> Callable[..., Case]:
    return _make_case


@pytest.fixture
def run_split() -> Callable[..., Outcome]:
    return _run_split


@pytest.fixture
def run_threads() -> Callable[..., None]:
    return _run_threads


@pytest.fixture
def assert_same() -> Callable[..., None]:
    return _assert_same
