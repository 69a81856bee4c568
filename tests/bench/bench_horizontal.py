"""What the engine costs a party and round, without secure aggregation (`make bench-horizontal`; QUICK=1).

A network of 1 M parameters (4 MB) is trained by 4, 16 and 64 parties, each with one local step a round on 64 rows:

- **isthmus**: `coordinate_rounds` and `join_rounds` over real channels with a ledger each, checkpoints after every
  round and progress told as public events. Coordinator and parties are threads of one process, joined by carriers in
  memory, for 4 and 16 parties as for 64: what it takes to start processes is not measured here.
- **bare**: the same local training one party after the other in a plain torch loop: load the model, judge the
  validation rows, one step of SGD, take the parameters out, add them up; no messages, no checkpoints.

The overhead is the wall time of a round of ours less that of a bare one, divided by the parties. Parties are threads
that share the processors with the coordinator, so on more than one processor ours trains some of them at once; with one
torch thread each. The bare loop is repeated with as many threads as there are processors (`bare, threads`), and the
overhead is taken over the faster of the two. All are timed from the end of the first round to the end of the last. They
take turns, so that a busy minute meets them all; median and range of 3 repetitions. Nothing is asserted; the last line
is JSON: `overhead_ms_per_party_round_4`, `…_16`, `…_64`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from isthmus.flows.publisher import Publisher
from isthmus.horizontal.course import RoundReport
from isthmus.horizontal.local import BatchReport
from isthmus.horizontal.members import Members
from isthmus.horizontal.participant import join_rounds
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.rounds import coordinate_rounds
from isthmus.horizontal.tabular import linear, private_generator
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.events import Phase, Progress, Round
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.local import memory_pair

QUICK = os.environ.get("QUICK", "") not in ("", "0")
PARTIES = (4, 16, 64)
ROUNDS = {4: 8, 16: 4, 64: 2} if QUICK else {4: 30, 16: 12, 64: 5}  # measured; one more comes before
REPETITIONS = 3
INPUTS, WIDTHS, ROWS, VALIDATION, RATE = 40, (960, 960), 64, 64, 0.01
JOB = "1" * 64


def network() -> nn.Sequential:
    """1 M parameters."""
    weights = private_generator(1, "weights")
    first, second = WIDTHS
    return nn.Sequential(
        linear(INPUTS, first, weights), nn.ReLU(), linear(first, second, weights), nn.ReLU(), linear(second, 1, weights)
    )


class Rows:
    """A party's rows and its module: the `LocalProblem` of the rounds, and what the bare loop trains as well."""

    def __init__(self, place: int) -> None:
        generator = np.random.default_rng(place)
        inputs = generator.normal(size=(ROWS + VALIDATION, INPUTS)).astype("f4")
        self.inputs, self.target = torch.from_numpy(inputs), torch.from_numpy((inputs.mean(axis=1) > 0).astype("f4"))
        self.module, self.train_rows = network(), ROWS

    def loss(self, index: Tensor) -> Tensor:
        """Mean cross-entropy."""
        logits = self.module(self.inputs[index]).squeeze(1)
        return binary_cross_entropy_with_logits(logits, self.target[index])

    def validation(self) -> Validation:
        """The same of the validation rows."""
        self.module.eval()
        with torch.no_grad():
            loss = self.loss(torch.arange(ROWS, ROWS + VALIDATION)).item()
        return Validation(VALIDATION, loss, 0.5, VALIDATION)

    def reseed(self, round: int) -> None:
        """There is no dropout."""


class Homes:
    """Homes with ledgers for all parties, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._homes = folder, dict[str, PartyHome]()

    def home(self, name: str) -> PartyHome:
        """A party's home."""
        if name not in self._homes:
            (self.folder / name).mkdir()
            content = {"name": name, "policy": {"publish": ["counts"]}}
            (self.folder / name / "party.yaml").write_text(yaml.safe_dump(content))
            self._homes[name] = PartyHome(self.folder / name)
        return self._homes[name]


def ours(homes: Homes, count: int) -> float:
    """Seconds a round of isthmus."""
    names = [f"p{place}" for place in range(count)]
    plan = RoundsPlan(
        rounds=ROUNDS[count] + 1, batch_size=0, learning_rate=RATE, secure=False, keep="best", deadline_s=600.0
    )
    problems = {name: Rows(place) for place, name in enumerate(names)}
    layout = plan.scope.layout(problems[names[0]].module)
    initial = layout.flatten(plan.scope.split(problems[names[0]].module)[0])
    left: dict[str, Channel] = {}
    right: dict[str, Channel] = {}
    log = Ledger(homes.home("coordinator")).job("bench", JOB)
    for name in names:
        mine, theirs = memory_pair()
        left[name] = Channel(mine, me="coordinator", peer=name, log=log)
        right[name] = Channel(theirs, me=name, peer="coordinator", log=Ledger(homes.home(name)).job("bench", JOB))
    publishers = {name: publisher(homes.home(name), names) for name in ("coordinator", *names)}
    failures, ends = [], []

    def party(name: str, folder: Path) -> None:
        def told(report: BatchReport) -> None:
            publishers[name](
                Progress(
                    phase=Phase.TRAIN, index=report.round, units=report.rounds, done=report.batch, total=report.batches
                )
            )

        try:
            join_rounds(
                right[name], problems[name], plan, parties=names, job_digest=JOB, attempt=1,
                checkpoints=Checkpoints(folder / name, party=name), on_batch=told,
            )  # fmt: skip
        except BaseException as failure:
            failures.append(failure)
            right[name].close()

    def told(report: RoundReport) -> None:
        publishers["coordinator"](
            Round(
                round=report.round, loss=report.loss, validation_loss=report.validation_loss,
                validation_score=report.validation_score, parties=report.survivors,
            )
        )  # fmt: skip
        ends.append(time.monotonic())

    with tempfile.TemporaryDirectory(dir=homes.folder) as folder:
        threads = [threading.Thread(target=party, args=(name, Path(folder))) for name in names]
        for thread in threads:
            thread.start()
        coordinate_rounds(
            Members(left), plan, initial, layout, coordinator="coordinator", parties=names, job_digest=JOB, attempt=1,
            checkpoints=Checkpoints(Path(folder) / "coordinator", party="coordinator"), on_round=told,
        )  # fmt: skip
        for thread in threads:
            thread.join()
    for channel in (*left.values(), *right.values()):
        channel.close()
    if failures:
        sys.exit(f"a party failed: {failures[0]!r}")
    return (ends[ROUNDS[count]] - ends[0]) / ROUNDS[count]  # the first is told when the first round is done


def publisher(home: PartyHome, names: list[str]) -> Publisher:
    """What a vault tells its flow, into nowhere."""
    nowhere = open(os.devnull, "wb")  # noqa: SIM115
    tell = Publisher(lambda line: (nowhere.write(line), nowhere.flush()), ("coordinator", *names))
    tell.obey(home.config.policy)
    return tell


def bare(count: int, workers: int) -> float:
    """Seconds a round of the plain loop."""
    problems = [Rows(place) for place in range(count)]
    model = [parameter.detach().clone() for parameter in problems[0].module.parameters()]
    index = torch.arange(ROWS)

    def one(problem: Rows) -> list[Tensor]:
        parameters = list(problem.module.parameters())
        with torch.no_grad():
            for parameter, value in zip(parameters, model, strict=True):
                parameter.copy_(value)
        problem.validation()
        problem.module.train()
        optimizer = torch.optim.SGD(parameters, lr=RATE, fused=True)
        problem.loss(index).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return [parameter.detach() for parameter in parameters]

    ends = []
    with ThreadPoolExecutor(workers) as pool:
        run: Callable[..., Any] = pool.map if workers > 1 else map
        for _ in range(ROUNDS[count] + 1):
            total = [torch.zeros_like(value) for value in model]
            for parameters in run(one, problems):
                for place, value in enumerate(parameters):
                    total[place] += value
            model = [value / count for value in total]
            ends.append(time.monotonic())
    return (ends[-1] - ends[0]) / ROUNDS[count]


def main() -> None:
    """Print the table and the JSON."""
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    size = sum(parameter.numel() for parameter in network().parameters())
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"{size:,} parameters ({size * 4 / 1e6:.1f} MB), one local step of {ROWS} rows, {processors} processors")
    print("ms a round, median (range):")
    print(f"{'parties':>8} {'isthmus':>22} {'bare':>22} {'bare, threads':>22} {'overhead a party':>22}")
    with tempfile.TemporaryDirectory() as folder:
        homes = Homes(Path(folder))
        bare(4, 1)  # torch imports its optimisers when the first is made
        for count in PARTIES:
            found: dict[str, list[float]] = {"ours": [], "bare": [], "threads": []}
            for _ in range(REPETITIONS):
                found["ours"].append(1000 * ours(homes, count))
                found["bare"].append(1000 * bare(count, 1))
                found["threads"].append(1000 * bare(count, processors))
            costs = [
                (mine - min(one, many)) / count
                for mine, one, many in zip(found["ours"], found["bare"], found["threads"], strict=True)
            ]
            cells = [f"{statistics.median(v):8.1f} ({min(v):.1f}-{max(v):.1f})" for v in (*found.values(), costs)]
            print(f"{count:>8} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)
            figures[f"overhead_ms_per_party_round_{count}"] = round(statistics.median(costs), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
