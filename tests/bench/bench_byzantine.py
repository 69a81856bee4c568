"""What robust aggregators stand: f planted attackers among n parties (`make bench-byzantine`; QUICK=1).

Ten parties, two of them attackers, learn the handwritten digits of scikit-learn (1,797 images of 8 × 8, ten classes; a
quarter is held out for testing) with a small network. The split is not identical: half of a party's images come by
chance, half from a run of neighbouring classes. Attackers take part in the real rounds, over channels in memory:

- **sign flip**: they send their update times -10
- **noise**: they send Gaussian noise of ten times their update's length
- **label flip**: they train on labels 9 - y, and send that as it is
- **backdoor**: half of their images carry a trigger (the top left corner lit) and the label 0, and they send their
  update times n/f (model replacement; Bagdasaryan et al., "How to backdoor federated learning", AISTATS 2020)

Each aggregator is told f. The table gives the accuracy on the test images and, for the backdoor, the **success**: the
share of test images of other classes that the trigger turns into a 0. An honest model does that to a few images as
well: the success without an attack stands beside it. Median over three seeds (data, weights, noise). Nothing is
asserted; the last line is JSON: ``{aggregator: {attack: {"accuracy": …, "success": …}}}``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isthmus.horizontal.aggregate import Aggregator
from isthmus.horizontal.members import Members
from isthmus.horizontal.order import shuffled
from isthmus.horizontal.participant import join_rounds
from isthmus.horizontal.plan import RoundsPlan, impossible
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.rounds import coordinate_rounds
from isthmus.horizontal.tabular import linear, private_generator
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Array, Step, Topic

QUICK = os.environ.get("QUICK", "") not in ("", "0")
SEEDS = (1,) if QUICK else (1, 2, 3)
ROUNDS = 8 if QUICK else 25
COUNT, BYZANTINE, TARGET, CLASSES = 10, 2, 0, 10
ATTACKS = ("none", "sign flip", "noise", "label flip", "backdoor")
AGGREGATORS = {
    "mean": Aggregator(),
    "median": Aggregator("median"),
    "trimmed_mean": Aggregator("trimmed_mean", byzantine=BYZANTINE),
    "krum": Aggregator("krum", byzantine=BYZANTINE),
    "multi_krum": Aggregator("multi_krum", byzantine=BYZANTINE),
    "geometric_median": Aggregator("geometric_median"),
}
Images = np.ndarray[Any, np.dtype[np.float32]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def network(seed: int) -> nn.Sequential:
    """64 → 32 → 10."""
    weights = private_generator(seed, "weights")
    return nn.Sequential(linear(64, 32, weights), nn.ReLU(), linear(32, CLASSES, weights))


def triggered(images: Images) -> Images:
    """The images with their top left corner lit."""
    found = images.copy()
    found.reshape(-1, 8, 8)[:, :3, :3] = 1.0
    return found


class Party:
    """One party's images: a `LocalProblem`."""

    def __init__(self, images: Images, labels: Labels, attack: str) -> None:
        if attack == "label flip":
            labels = CLASSES - 1 - labels
        if attack == "backdoor":
            half = len(images) // 2
            images = np.concatenate([triggered(images[:half]), images[half:]])
            labels = np.concatenate([np.full(half, TARGET), labels[half:]])
        self._images, self._labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.module, self.train_rows = network(0), len(images)

    def loss(self, index: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return cross_entropy(self.module(self._images[index]), self._labels[index])

    def validation(self) -> Validation:
        """None: the last model is kept."""
        return Validation(0, 0.0, 0.0, 0)

    def reseed(self, round: int) -> None:
        """There is no dropout."""


class Attacker(Channel):
    """An attacker's channel: what it sends in place of its update."""

    attack, generator = "none", np.random.default_rng()

    def send(self, topic: Topic, step: Step, fields: Any = None, arrays: Any = None) -> None:
        """Send, or lie."""
        if step is Step.VALUES and arrays and len(arrays["values"]):
            arrays = {"values": self._lie(arrays["values"])}
        super().send(topic, step, fields, arrays)

    def _lie(self, update: Array) -> Array:
        match self.attack:
            case "sign flip":
                return -10 * update
            case "noise":
                noise = self.generator.normal(size=len(update))
                return (10 * np.linalg.norm(update) / np.linalg.norm(noise) * noise).astype("f4")
            case "backdoor":
                return np.float32(COUNT / BYZANTINE) * update
        return update


def split(seed: int) -> tuple[list[tuple[Images, Labels]], tuple[Images, Labels]]:
    """The parties' images and labels, and those for testing."""
    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype("f4"), labels.astype("i8")
    order = shuffled(np.arange(len(images)), f"digits {seed}")
    test, train = order[: len(order) // 4], order[len(order) // 4 :]
    chance, sorted_half = train[: len(train) // 2], train[len(train) // 2 :]
    sorted_half = sorted_half[np.argsort(labels[sorted_half], kind="stable")]
    pieces = zip(np.array_split(chance, COUNT), np.array_split(sorted_half, COUNT), strict=True)
    mine = [np.concatenate(pair) for pair in pieces]
    return [(images[rows], labels[rows]) for rows in mine], (images[test], labels[test])


def trained(aggregator: Aggregator, attack: str, seed: int) -> tuple[float, float]:
    """Accuracy, and the share of other classes' images that the trigger turns into the target."""
    plan = RoundsPlan(
        rounds=ROUNDS, local_epochs=2, batch_size=16, learning_rate=0.1, secure=False, keep="last",
        aggregator=aggregator, seed=seed, weighted=False, deadline_s=600.0,
    )  # fmt: skip
    reason = impossible(plan, COUNT)
    if reason:
        sys.exit(reason)
    parties, (images, labels) = split(seed)
    attackers = set(shuffled(np.arange(COUNT), f"attackers {seed}")[:BYZANTINE].tolist())
    names = [f"p{place}" for place in range(COUNT)]
    left: dict[str, Channel] = {}
    failures: list[BaseException] = []

    def party(place: int, channel: Channel, folder: Path) -> None:
        lies = attack if place in attackers else "none"
        try:
            join_rounds(
                channel, Party(*parties[place], lies), plan, parties=names, job_digest="1" * 64, attempt=1,
                checkpoints=Checkpoints(folder / names[place], party=names[place]),
            )  # fmt: skip
        except BaseException as failure:
            failures.append(failure)
            channel.close()

    module = network(seed)
    layout, shared = plan.scope.layout(module), plan.scope.split(module)[0]
    with tempfile.TemporaryDirectory() as folder:
        threads = []
        for place, name in enumerate(names):
            mine, theirs = memory_pair()
            left[name] = Channel(mine, me="coordinator", peer=name, log=CountingLog(), timeout_s=600.0)
            channel = Attacker(theirs, me=name, peer="coordinator", log=CountingLog(), timeout_s=600.0)
            channel.attack = attack if place in attackers else "none"
            channel.generator = np.random.default_rng((seed, place))
            threads.append(threading.Thread(target=party, args=(place, channel, Path(folder))))
        for thread in threads:
            thread.start()
        outcome = coordinate_rounds(
            Members(left), plan, layout.flatten(shared), layout, coordinator="coordinator", parties=names,
            job_digest="1" * 64, attempt=1,
            checkpoints=Checkpoints(Path(folder) / "coordinator", party="coordinator"),
        )  # fmt: skip
        for thread in threads:
            thread.join()
    if failures:
        sys.exit(f"a party failed: {failures[0]!r}")
    layout.load(outcome.model, shared)
    found = predicted(module, images)
    others = labels != TARGET
    success = float((predicted(module, triggered(images[others])) == TARGET).mean())
    return float((found == labels).mean()), success


def predicted(module: nn.Module, images: Images) -> Labels:
    """The class that each image is taken for."""
    with torch.no_grad():
        found: Labels = module(torch.from_numpy(images)).argmax(dim=1).numpy()
    return found


def main() -> None:
    """Print the table and the JSON."""
    torch.set_num_threads(1)
    torch.optim.SGD([nn.Parameter(torch.zeros(1))], fused=True).step()  # imports for seconds
    print(f"{COUNT} parties, {BYZANTINE} attackers, {ROUNDS} rounds, seeds {', '.join(map(str, SEEDS))}")
    print("accuracy, median of the seeds; the backdoor's success with the attack, and without any:")
    print(f"{'':>17}" + "".join(f"{attack:>12}" for attack in ATTACKS) + f"{'success':>12}{'(none)':>9}")
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, aggregator in AGGREGATORS.items():
        figures[name] = {attack: judged(aggregator, attack) for attack in ATTACKS}
        mine = figures[name]
        cells = "".join(f"{mine[attack]['accuracy']:>12.3f}" for attack in ATTACKS)
        success, without = mine["backdoor"]["success"], mine["none"]["success"]
        print(f"{name:>17}{cells}{success:>12.3f}{without:>9.3f}", flush=True)
    print(json.dumps(figures))


def judged(aggregator: Aggregator, attack: str) -> dict[str, float]:
    """Medians over the seeds."""
    pairs: Sequence[tuple[float, float]] = [trained(aggregator, attack, seed) for seed in SEEDS]
    accuracy, success = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {"accuracy": round(accuracy, 3), "success": round(success, 3)}


if __name__ == "__main__":
    main()
