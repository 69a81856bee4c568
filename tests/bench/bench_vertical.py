"""Split training through the whole protocol against plain torch in one place (`make bench-vertical`; QUICK=1).

- **isthmus**: `train_active` and `train_passive` in two processes over a socket pair, with the real channel, ledger,
  progress events and checkpoints, one torch thread each.
- **plain**: the loop that anyone would write: both parties' columns in one process with one thread, `nn.Sequential`,
  `torch.cat`, `BCEWithLogitsLoss`, Adam with its defaults; the same widths and dropout.
- **plain, fused**: the same with `Adam(fused=True)`, as ours has it. What is left of the gain then is the protocol's.

Both judge the validation rows once an epoch, and both are timed from the end of the first epoch to the end of the last.
Two processes can be at most twice as fast as one, where they really have a processor each. Ours and plain take turns,
so that a busy minute meets both. Nothing is asserted; the last line is JSON, in which `b32_s0` is rows a second of ours
divided by those of plain, at a batch of 32 and with staleness 0.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sealed_way import sealed_way
from sklearn.metrics import roc_auc_score
from torch import nn

from isthmus.flows.publisher import Publisher
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.events import Phase, Progress
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger
from isthmus.parties.network.channel import Channel
from isthmus.parties.network.local import socket_pair
from isthmus.parties.table import Column
from isthmus.vertical import EpochReport, SplitPlan, split_rows, train_active, train_passive

QUICK = os.environ.get("QUICK", "") not in ("", "0")
ROWS = 12_000 if QUICK else 40_000
EPOCHS = {32: 1, 256: 4, 1024: 7} if QUICK else {32: 4, 256: 14, 1024: 24}  # measured; one more comes before
COLUMNS, BOTTOM, TOP, DROPOUT = 20, (64, 32), (32,), 0.1
REPETITIONS = 3
BUDGET_S = 40.0  # of QUICK: no repetition begins that would end later
PARTIES = ("active", "passive")
JOB, ALIGNMENT = "1" * 64, "2" * 64


def plan(batch: int) -> SplitPlan:
    """The job's hyperparameters."""
    epochs = 1 + EPOCHS[batch]
    return SplitPlan(
        bottom=BOTTOM, top=TOP, dropout=DROPOUT, epochs=epochs, patience=epochs, batch_size=batch,
        validation_share=0.05, test_share=0.05,
    )  # fmt: skip


def data(side: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """One side's columns ``(rows, 20)`` and the label that both sides' columns explain."""
    both = np.random.default_rng(1).normal(size=(2, ROWS, COLUMNS))
    label = both.mean(axis=(0, 2)) * 6 + np.random.default_rng(2).normal(size=ROWS) > 0
    return both[side], label.astype(np.float32)


def one_side(side: int, descriptor: int, folder: Path) -> None:
    """A party: trains once for every batch size that it is told, and says how many rows a second it was."""
    torch.set_num_threads(1)
    me, peer = PARTIES[side], PARTIES[1 - side]
    home = PartyHome(folder / me)
    values, label = data(side)
    columns = [Column(f"c{place}", "number", values[:, place]) for place in range(COLUMNS)]
    log = Ledger(home).job("bench", JOB)
    channel = Channel(sealed_way(descriptor, me, peer), me=me, peer=peer, log=log)
    events = open(os.devnull, "wb")  # noqa: SIM115
    tell = Publisher(lambda line: (events.write(line), events.flush()), PARTIES)
    tell.obey(home.config.policy)
    print("ready", flush=True)
    while line := sys.stdin.readline().strip():
        chosen, ends, before = plan(int(line)), [], sum(channel.sent.values())

        def on_epoch(report: EpochReport, ends: list[float] = ends) -> None:
            tell(
                Progress(
                    phase=Phase.TRAIN, index=report.epoch, units=report.epochs, done=report.batch, total=report.batches
                )
            )
            if report.batch == report.batches:
                ends.append(time.monotonic())

        with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
            options: dict[str, Any] = {
                "party": me, "job_digest": JOB, "alignment_digest": ALIGNMENT, "private_seed": side,
                "checkpoints": Checkpoints(Path(checkpoints), party=me), "on_epoch": on_epoch,
            }  # fmt: skip
            if side == 0:
                train_active({peer: channel}, columns, label, chosen, **options)
            else:
                train_passive(channel, columns, chosen, **options)
        parts = split_rows(ROWS, chosen.validation_share, chosen.test_share, chosen.seed, ALIGNMENT)
        rows = len(parts.train) * (len(ends) - 1)
        sent = (sum(channel.sent.values()) - before) / (rows + len(parts.train))
        print(json.dumps({"rows_a_second": rows / (ends[-1] - ends[0]), "sent_a_row": sent}), flush=True)
    channel.close()


class Parties:
    """Both parties, each in its own process with its own home."""

    def __init__(self, folder: Path) -> None:
        pair = socket_pair()
        self.processes = []
        for side, (me, end) in enumerate(zip(PARTIES, pair, strict=True)):
            (folder / me).mkdir()
            content = {"name": me, "datasets": {}, "policy": {"publish": ["counts"]}}
            (folder / me / "party.yaml").write_text(yaml.safe_dump(content))
            process = subprocess.Popen(
                [sys.executable, __file__, "--side", str(side), str(end.fileno()), str(folder)],
                pass_fds=[end.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
            self.processes.append(process)
        for end in pair:
            end.close()
        for process in self.processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                sys.exit("a party did not start")

    def train(self, batch: int) -> dict[str, float]:
        """What the active party measured, with the bytes of both."""
        answers = []
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{batch}\n")
            process.stdin.flush()
        for process in self.processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        sent = sum(answer["sent_a_row"] for answer in answers)
        return {"rows_a_second": answers[0]["rows_a_second"], "sent_a_row": sent}

    def stop(self) -> None:
        """End both."""
        for process in self.processes:
            process.communicate(timeout=60)


def plain(batch: int, *, fused: bool) -> float:
    """Rows a second of the plain loop."""
    torch.manual_seed(0)
    chosen = plan(batch)
    parts = split_rows(ROWS, chosen.validation_share, chosen.test_share, chosen.seed, ALIGNMENT)
    sides = [torch.from_numpy(data(side)[0].astype(np.float32)) for side in (0, 1)]
    left, right = ((side - side[parts.train].mean(0)) / side[parts.train].std(0) for side in sides)
    truth = data(0)[1]
    label, train, validation = (torch.from_numpy(values) for values in (truth, parts.train, parts.validation))

    def bottom() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(COLUMNS, BOTTOM[0]), nn.ReLU(), nn.Dropout(DROPOUT),
            nn.Linear(BOTTOM[0], BOTTOM[1]), nn.ReLU(), nn.Dropout(DROPOUT),
        )  # fmt: skip

    first, second = bottom(), bottom()
    top = nn.Sequential(nn.Linear(2 * BOTTOM[1], TOP[0]), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(TOP[0], 1))
    network = nn.ModuleList([first, second, top])
    adam, loss_of = torch.optim.Adam(network.parameters(), fused=fused or None), nn.BCEWithLogitsLoss()
    ends = []
    for _ in range(chosen.epochs):
        network.train()
        order, total = train[torch.randperm(len(train))], 0.0
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            adam.zero_grad()
            logits = top(torch.cat([first(left[rows]), second(right[rows])], dim=1)).squeeze(1)
            loss = loss_of(logits, label[rows])
            loss.backward()
            adam.step()
            total += loss.item() * len(rows)
        network.eval()
        with torch.no_grad():
            logits = top(torch.cat([first(left[validation]), second(right[validation])], dim=1)).squeeze(1)
            roc_auc_score(truth[parts.validation], logits.numpy())
        ends.append(time.monotonic())
    return len(train) * (chosen.epochs - 1) / (ends[-1] - ends[0])


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main() -> None:
    """Measure, print the table, then one line of JSON."""
    until = time.monotonic() + (BUDGET_S if QUICK else float("inf"))
    torch.set_num_threads(1)
    print(
        f"{'QUICK: ' if QUICK else ''}{ROWS:,} rows, {COLUMNS} columns a side, bottoms {BOTTOM}, top {TOP}, dropout "
        f"{DROPOUT}; medians of {REPETITIONS} (range); {os.cpu_count()} processors\n"
    )
    raw: dict[int, list[dict[str, float]]] = {batch: [] for batch in EPOCHS}
    with tempfile.TemporaryDirectory() as folder:
        parties = Parties(Path(folder))
        try:
            longest = 0.0
            for repetition in range(REPETITIONS):
                start = time.monotonic()
                if repetition and start + longest > until:
                    break
                for batch, found in raw.items():
                    base = {"plain": plain(batch, fused=False), "plain_fused": plain(batch, fused=True)}
                    found.append({**parties.train(batch), **base})
                longest = max(longest, time.monotonic() - start)
        finally:
            parties.stop()
    print(
        f"{'batch':>6}{'isthmus rows/s':>28}{'plain rows/s':>28}{'ours / plain':>20}{'ours / plain, fused':>21}"
        f"{'bytes a row':>13}  repetitions"
    )
    result: dict[str, Any] = {"benchmark": "vertical", "quick": QUICK, "rows": ROWS}
    for batch, found in raw.items():
        ours, base, fused = ([one[name] for one in found] for name in ("rows_a_second", "plain", "plain_fused"))
        ratios, fused_ratios = ([x / y for x, y in zip(ours, other, strict=True)] for other in (base, fused))
        print(
            f"{batch:>6}{spread(ours, 0):>28}{spread(base, 0):>28}{spread(ratios, 2):>20}{spread(fused_ratios, 2):>21}"
            f"{found[0]['sent_a_row']:>13.1f}  {len(found)}"
        )
        result[f"b{batch}_s0"] = round(statistics.median(ratios), 4)
        result[f"b{batch}_s0_fused"] = round(statistics.median(fused_ratios), 4)
    result["repetitions"] = len(next(iter(raw.values())))
    result["raw"] = {str(batch): found for batch, found in raw.items()}
    print("\nours / plain: higher is better; its range is that of single repetitions.")
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        one_side(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
