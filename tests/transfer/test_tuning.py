from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.table import Column
from isthmus.transfer.pretrain import pretrain_without
from isthmus.transfer.trunk import PretrainPlan
from isthmus.vertical import (
    ActivePart,
    PassivePart,
    SplitPlan,
    split_rows,
    train_active,
    train_central,
    train_passive,
)
from isthmus.vertical.models import Trunk

ROWS, SHARED = 900, 150
JOB, ALIGNMENT = "1" * 64, "2" * 64
SEEDS = {"clinic": 11, "insurer": 12}
PLAN = SplitPlan(
    bottom=(16, 8), top=(8,), epochs=12, batch_size=32, learning_rate=0.005, patience=12,
    validation_share=0.2, test_share=0.4,
)  # fmt: skip
PARTS = split_rows(SHARED, PLAN.validation_share, PLAN.test_share, PLAN.seed, ALIGNMENT)
PRETRAINING = PretrainPlan(hidden=(16, 8), epochs=8, batch_size=64, learning_rate=0.005)


@dataclass(frozen=True)
class World:
    """A source's rows and labels, the positions of the shared ones in them, and the target's columns of those."""

    columns: list[Column]
    label: np.ndarray[Any, np.dtype[np.float32]]
    shared: np.ndarray[Any, np.dtype[np.int64]]
    own: list[Column]

    @property
    def tables(self) -> dict[str, list[Column]]:
        """Both parties' columns of the shared rows."""
        theirs = [Column(column.name, column.kind, column.values[self.shared]) for column in self.columns]
        return {"clinic": self.own, "insurer": theirs}

    def trunk(self, folder: Path, label: np.ndarray[Any, np.dtype[np.float32]] | None = None) -> Trunk:
        """What the source learns of all rows but those held out."""
        held_out = self.shared[np.concatenate([PARTS.validation, PARTS.test])]
        return pretrain_without(
            self.columns, self.label if label is None else label, held_out, PRETRAINING,
            party="insurer", private_seed=SEEDS["insurer"], identity=str(folder), folder=folder,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a vault: one thread adds up in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> World:
    """Outcomes hang on a product of two columns of the source, which few rows do not show."""
    generator = np.random.default_rng(5)
    values = generator.normal(size=(ROWS, 3))
    logits = 4 * values[:, 0] * values[:, 1] + 0.5 * values[:, 2]
    label = (generator.random(ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    shared = generator.permutation(ROWS)[:SHARED]
    columns = [Column("a", "number", values[:, 0].copy()), Column("b", "number", values[:, 1].copy())]
    return World(columns, label, shared, [Column("c", "number", values[shared, 2])])


def tune(world: World, trunk: Trunk, folder: Path) -> tuple[ActivePart, PassivePart]:
    """Both sides, each in a thread."""
    ours, theirs = memory_pair()
    target = Channel(ours, me="clinic", peer="insurer", log=CountingLog(), timeout_s=20)
    source = Channel(theirs, me="insurer", peer="clinic", log=CountingLog(), timeout_s=20)
    found: dict[str, Any] = {}

    def options(party: str) -> dict[str, Any]:
        return {
            "party": party, "job_digest": JOB, "alignment_digest": ALIGNMENT, "private_seed": SEEDS[party],
            "checkpoints": Checkpoints(folder / party, party=party),
        }  # fmt: skip

    def theirs_side() -> None:
        table = world.tables["insurer"]
        found["insurer"] = train_passive(source, table, PLAN, trunk=trunk, **options("insurer"))

    thread = threading.Thread(target=theirs_side, daemon=True)
    thread.start()
    found["clinic"] = train_active({"insurer": target}, world.own, world.label[world.shared], PLAN, **options("clinic"))
    thread.join(20)
    for channel in (target, source):
        channel.close()
    return found["clinic"], found["insurer"]


def test_tuning_is_central_training_that_begins_with_the_trunk_bit_for_bit(world: World, tmp_path: Path):
    trunk = world.trunk(tmp_path)
    active, passive = tune(world, trunk, tmp_path)
    central = train_central(
        world.tables, world.label[world.shared], PLAN,
        active="clinic", private_seeds=SEEDS, parts=PARTS, trunks={"insurer": trunk},
    )  # fmt: skip
    for party, part in (("clinic", active), ("insurer", passive)):
        wanted = central.part(party)
        found = {name: value.numpy() for name, value in part.model.state_dict().items()}
        assert found.keys() == wanted.keys()
        assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_what_the_source_learnt_of_other_rows_reaches_patients_that_were_held_out(world: World, tmp_path: Path):
    scores = {}
    for name, trunks in (("trunk", {"insurer": world.trunk(tmp_path)}), ("scratch", {})):
        model = train_central(
            world.tables, world.label[world.shared], PLAN,
            active="clinic", private_seeds=SEEDS, parts=PARTS, trunks=trunks,
        )  # fmt: skip
        scores[name] = roc_auc_score(world.label[world.shared][PARTS.test], model.logits(PARTS.test))
    assert scores["scratch"] < 0.75
    assert scores["trunk"] > 0.85
