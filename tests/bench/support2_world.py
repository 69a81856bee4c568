"""SUPPORT2 between a source and a target: the patients of one seed of `bench_transfer.py`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from isthmus.horizontal.metrics import auc
from isthmus.parties.table import Column
from isthmus.transfer.gate import fit
from isthmus.transfer.linear import LinearPlan
from isthmus.transfer.patients import Patients
from isthmus.transfer.pretrain import Give, Pretrained, PretrainPlan, pretrain
from isthmus.transfer.trunk import train_trunk

DATA = Path(os.environ.get("DATA") or Path(__file__).parents[2] / "flows" / "data") / "support2.parquet"
TARGET = (
    "meanbp", "wblc", "hrt", "resp", "temp", "pafi", "alb", "bili", "crea", "sod", "ph", "glucose", "bun", "urine",
    "scoma",
)  # fmt: skip
SOURCE = ("age", "sex", "race", "income", "edu", "dzgroup", "dzclass", "ca", "num_co", "diabetes", "dementia")
PLAN = LinearPlan()
TEST = 1_000

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Support2:
    """All patients: the columns of either side, and the outcome, ``(rows,)``."""

    target: tuple[Column, ...]
    source: tuple[Column, ...]
    label: NDArray[np.float32]


def read() -> Support2:
    """The patients, in the order of the file's `person`."""
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM read_parquet('{DATA}') ORDER BY person").fetchnumpy()
    columns = {}
    for name in (*TARGET, *SOURCE):
        values = np.ma.asarray(found[name])
        if values.dtype == object:
            texts = [None if value is None or value is np.ma.masked else str(value) for value in values]
            columns[name] = Column(name, "category", np.array(texts, dtype=object))
        else:
            columns[name] = Column(name, "number", values.astype(np.float64).filled(np.nan))
    label = np.asarray(found["hospdead"]).astype(np.float32)
    return Support2(tuple(columns[name] for name in TARGET), tuple(columns[name] for name in SOURCE), label)


def take(columns: tuple[Column, ...], rows: Rows) -> tuple[Column, ...]:
    """Some rows of the columns."""
    return tuple(Column(column.name, column.kind, column.values[rows]) for column in columns)


@dataclass(frozen=True)
class World:
    """One seed's patients, as positions.

    `test` are seen by nobody, `known` are the source's and the first `shared` of them shared, `unknown` are known to
    the target alone. `folder` takes what is written on the way.
    """

    data: Support2
    seed: int
    folder: Path = field(repr=False)
    test: Rows
    known: Rows
    shared: int
    unknown: Rows

    @classmethod
    def of(cls, data: Support2, seed: int, folder: Path, shared: int, without: int = 0) -> World:
        """The patients shuffled by a seed, the source being `without` some that the target knows."""
        order = np.random.default_rng(seed).permutation(len(data.label))
        test, overlap, rest = np.split(order, [TEST, TEST + shared])
        known = np.concatenate([overlap, rest[without:]])
        return cls(data, seed, folder / f"{shared} {without}", test, known, shared, rest[:without])

    @property
    def digest(self) -> str:
        """Stands for the alignment's digest: it orders folds."""
        return hashlib.sha256(f"{self.seed} {self.shared}".encode()).hexdigest()

    @property
    def source(self) -> tuple[tuple[Column, ...], NDArray[np.float32]]:
        """Columns and label of all the source's rows; the shared ones come first."""
        return take(self.data.source, self.known), self.data.label[self.known]

    def pretrained(self, **plan: Any) -> Pretrained:
        """What the source learns, a model a fold."""
        settings = PretrainPlan(seed=self.seed, **plan)
        columns, label = self.source
        return pretrain(
            columns, label if settings.how == "supervised" else None, np.arange(self.shared), settings,
            party="source", alignment_digest=self.digest, private_seed=self.seed,
            identity=f"{self.seed} {len(self.known)} {self.shared}", folder=self.folder / settings.how,
        )  # fmt: skip

    def in_sample(self) -> tuple[Floats, Floats]:
        """Scores of all known and of the test patients by one model, which has been trained on all known ones."""
        columns, label = self.source
        plan, everybody = PretrainPlan(seed=self.seed), np.arange(len(label))
        network = train_trunk(columns, label, everybody, plan, private_seed=self.seed, on_epoch=lambda epoch: None)
        tables = columns, take(self.data.source, self.test)
        seen, new = (network.score(network.embed(table)).astype(np.float64) for table in tables)
        return seen, new

    def patients(self, given: Floats, extra: Rows | None = None) -> Patients:
        """What the target learns from: the shared patients and perhaps `extra` ones."""
        shared = self.known[: self.shared]
        rows = shared if extra is None else np.concatenate([shared, extra])
        return Patients(take(self.data.target, rows), given, self.data.label[rows].astype(np.float64))

    def test_auc(self, scores: Floats) -> float:
        """AUC of the test patients."""
        return auc(self.data.label[self.test], scores)

    def predicted(self, name: str, patients: Patients, given: Floats) -> Floats:
        """Logits of the test patients by one of the gate's candidates; `given` is what the source says of them."""
        return fit(name, patients, PLAN).logits(take(self.data.target, self.test), given)

    def new(self, learnt: Pretrained, give: Give) -> Floats:
        """What the source says of the test patients."""
        return learnt.represent(take(self.data.source, self.test), give).astype(np.float64)
