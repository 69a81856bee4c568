"""Fed-Heart-Disease in plain torch: data as FLamby prepares them, methods and settings, and each method as a loop.

The benchmark is that of Ogier du Terrail et al., "FLamby", NeurIPS 2022. Nothing of isthmus is in here: it is what
`bench_heart.py` compares the engine with.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from heart_model import Baseline
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

DATA = Path(os.environ.get("DATA") or Path(__file__).parents[3] / "shared" / "data" / "heart_disease")
SIZES = {"cleveland": (199, 104), "hungarian": (172, 89), "switzerland": (30, 16), "va": (85, 45)}  # as published
NUMBERS = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak")
ONE_HOT = {"cp": (2, 3, 4), "restecg": (1, 2)}  # each without its first level
COLUMNS = (*NUMBERS, *(f"{name}_{level}" for name, levels in ONE_HOT.items() for level in levels))
ROUNDS, STEPS, BATCH = 15, 100, 4
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A method with the benchmark's settings and its published accuracy."""

    published: float
    learning_rate: float
    mu: float = 0.0
    server: str = "sgd"
    server_rate: float = 1.0
    scaffold: bool = False


METHODS = {
    "fedavg": Method(0.685, 0.001),
    "fedprox": Method(0.685, 0.001, mu=0.01),
    "fedadam": Method(0.7255, 0.01, server="adam", server_rate=0.01),
    "fedyogi": Method(0.7314, 0.003162, server="yogi", server_rate=0.01),
    "fedadagrad": Method(0.7314, 0.003162, server="adagrad", server_rate=0.316228),
    "scaffold": Method(0.684, 0.001, scaffold=True),
}


@dataclass(frozen=True)
class Hospital:
    """The patients of one hospital: features ``(rows, 13)``, disease ``(rows,)``, and which rows are for training."""

    features: Rows
    disease: NDArray[np.int64]
    train: NDArray[np.bool_]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Training and test rows with their outcomes, standardised by the training rows; a constant becomes 0."""
        mean, scale = self.features[self.train].mean(0), self.features[self.train].std(0, ddof=1)
        rows = torch.from_numpy(((self.features - mean) / np.where(scale == 0, 1, scale)).astype(np.float32))
        disease, train = torch.from_numpy(self.disease.astype(np.float32)), torch.from_numpy(self.train)
        return rows[train], disease[train], rows[~train], disease[~train]


def read_hospital(name: str) -> Hospital:
    """Read a hospital's file as FLamby does: three columns dropped, then the rows with a gap; two columns one-hot."""
    path = DATA / f"{name}.csv"
    if not path.is_file():
        sys.exit(f"there is no {path}: name the folder of the benchmark's four CSV files with DATA=")
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            {key: value.strip() for key, value in row.items() if key not in ("slope", "ca", "thal")}
            for row in csv.DictReader(file, skipinitialspace=True)
        ]
    whole = [{key: float(value) for key, value in row.items()} for row in rows if "?" not in row.values()]
    features = [
        [row[key] for key in NUMBERS]
        + [float(row[key] == level) for key, levels in ONE_HOT.items() for level in levels]
        for row in whole
    ]
    disease = np.array([int(row["num"] > 0) for row in whole])
    rare = (
        min(np.bincount(disease, minlength=2)) <= 2
    )  # too few of one outcome to split them: then it is left to chance
    chosen, _ = train_test_split(
        np.arange(len(whole)), train_size=0.66, random_state=43, stratify=None if rare else disease
    )
    train = np.isin(np.arange(len(whole)), chosen)
    if (found := (int(train.sum()), int((~train).sum()))) != SIZES[name]:
        sys.exit(f"{name} has {found} patients for training and test, and the benchmark has {SIZES[name]}")
    return Hospital(np.array(features, dtype=np.float64), disease, train)


def plain(
    method: Method, seed: int, hospitals: dict[str, Hospital], *, correct_bias: bool = False, count_alike: bool = False
) -> float:
    """Mean test accuracy of a method. `correct_bias` is Flower's Adam; `count_alike` SCAFFOLD's controls by party, not
    by row.
    """
    model = Baseline(len(COLUMNS), seed)
    weights = list(model.parameters())
    shared = [one.detach().clone() for one in weights]
    data = [hospital.tensors() for hospital in hospitals.values()]
    orders = [endless_batches(len(rows)) for rows, *_ in data]
    share = [len(rows) / sum(len(rows) for rows, *_ in data) for rows, *_ in data]
    first, second, control = ([torch.zeros_like(one) for one in shared] for _ in range(3))
    own_controls = [[torch.zeros_like(one) for one in shared] for _ in data]
    for number in range(1, ROUNDS + 1):
        change, control_change = ([torch.zeros_like(one) for one in shared] for _ in range(2))
        for (rows, disease, *_), order, part, own in zip(data, orders, share, own_controls, strict=True):
            correction = [common - mine for common, mine in zip(control, own, strict=True)]
            train_locally(model, shared, correction, method, rows, disease, order)
            for place, (end, start) in enumerate(zip(weights, shared, strict=True)):
                moved = end.detach() - start
                change[place] += part * moved
                if method.scaffold:
                    fresh = -correction[place] - moved / (STEPS * method.learning_rate)
                    control_change[place] += (1 / len(data) if count_alike else part) * (fresh - own[place])
                    own[place] = fresh
        for place, moved in enumerate(change):
            control[place] += control_change[place]
            shared[place] += server_step(method, moved, first[place], second[place], number if correct_bias else None)
    with torch.no_grad():
        for one, value in zip(weights, shared, strict=True):
            one.copy_(value)
        hits = [((model(rows).squeeze(1) > 0) == (disease > 0)).float().mean().item() for *_, rows, disease in data]
    return float(np.mean(hits))


def endless_batches(rows: int) -> Iterator[Tensor]:
    """Shuffled batches, pass after pass; a round goes on where the last one ended."""
    while True:
        yield from torch.randperm(rows).split(BATCH)


def train_locally(
    model: nn.Module,
    shared: list[Tensor],
    correction: list[Tensor],
    method: Method,
    rows: Tensor,
    disease: Tensor,
    order: Iterator[Tensor],
) -> None:
    """A hospital's steps of SGD from the shared model, towards it (FedProx) and corrected (SCAFFOLD)."""
    weights, loss_of = list(model.parameters()), nn.BCEWithLogitsLoss()
    with torch.no_grad():
        for one, value in zip(weights, shared, strict=True):
            one.copy_(value)
    for _ in range(STEPS):
        batch = next(order)
        gradients = torch.autograd.grad(loss_of(model(rows[batch]).squeeze(1), disease[batch]), weights)
        with torch.no_grad():
            for one, gradient, start, extra in zip(weights, gradients, shared, correction, strict=True):
                one -= method.learning_rate * (gradient + method.mu * (one - start) + extra)


def server_step(method: Method, moved: Tensor, first: Tensor, second: Tensor, corrected: int | None) -> Tensor:
    """What the shared model moves by; changes the moments in place. `corrected` is the round to correct the bias of."""
    if method.server == "sgd":
        return method.server_rate * moved
    first.mul_(0.9).add_(0.1 * moved)
    square = moved**2
    match method.server:
        case "adam":
            second.mul_(0.999).add_(0.001 * square)
        case "yogi":
            second.sub_(0.001 * square * torch.sign(second - square))
        case "adagrad":
            second.add_(square)
    mean, scale = first, second
    if corrected is not None:
        mean, scale = first / (1 - 0.9**corrected), second / (1 - 0.999**corrected)
    return method.server_rate * mean / (scale.sqrt() + 1e-8)
