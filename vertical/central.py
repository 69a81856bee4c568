"""The composed network trained in one process, by the same rules as `split`: same order, weights, dropout and stopping.

It is the reference that split training equals bit for bit, and the "what if" of a simulation: all columns
pooled, or one party alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..horizontal.tabular import Encoded, TabularEncoder
from ..parties.table import Column
from .batches import Parts, batches, epoch_order
from .models import ActiveModel, ComposedNetwork, SplitPlan, Trunk, passive_bottom
from .training import (
    EpochReport,
    Learner,
    OnEpoch,
    Stopping,
    check_finite,
    check_parts,
    chunks,
    loss_of,
    validation_auc,
)


@dataclass(frozen=True)
class CentralModel:
    """A network trained with all its parts in one place."""

    network: ComposedNetwork
    active: str
    rows: Mapping[str, Encoded]
    stopping: Stopping

    def scores(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities of the label for the given rows."""
        return 1 / (1 + np.exp(-self.logits(chosen).astype(np.float64)))

    def logits(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of the given rows, ``(rows,)``."""
        self.network.eval()
        with torch.no_grad():
            found = [self.network(*_take(self.rows, self.active, chunk)).numpy() for chunk in chunks(chosen)]
        return np.concatenate(found)

    def part(self, party: str) -> dict[str, NDArray[np.float32]]:
        """The weights that this party would hold, under the names that its own part has."""
        module = self.network.active if party == self.active else self.network.passive[party]
        return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def train_central(
    tables: Mapping[str, Sequence[Column]],
    label: NDArray[np.float32],
    plan: SplitPlan,
    *,
    active: str,
    private_seeds: Mapping[str, int],
    parts: Parts,
    trunks: Mapping[str, Trunk] | None = None,
    on_epoch: OnEpoch | None = None,
) -> CentralModel:
    """Train on all tables at once.

    `tables` holds every party's columns over the same rows, `active`'s as well (perhaps none); the others are merged in
    the mapping's order. `parts` are positions within these rows; `trunks` are those of `train_passive`, by party.
    Raises `InputError` ``data.split`` and ``train.diverged``.
    """
    check_parts(label, parts)
    encoders, passive = {active: TabularEncoder.fit(tables[active], parts.train)}, {}
    for party, columns in tables.items():
        if party != active:
            encoders[party], passive[party] = passive_bottom(
                columns, parts.train, plan, private_seeds[party], (trunks or {}).get(party)
            )
    rows = {party: encoders[party].transform(columns, len(label)) for party, columns in tables.items()}
    network = ComposedNetwork(ActiveModel(plan, encoders[active], len(passive), private_seeds[active]), passive)
    learner, stopping = Learner(network, plan), Stopping(plan.patience)
    model = CentralModel(network, active, rows, stopping)
    outcome = torch.from_numpy(label)
    for epoch in range(1, plan.epochs + 1):
        network.train()
        total = 0.0
        for batch in batches(epoch_order(parts.train, plan.seed, epoch), plan.batch_size):
            loss = loss_of(network(*_take(rows, active, batch)), outcome[torch.from_numpy(batch)])
            check_finite(loss.item(), epoch)
            loss.backward()  # type: ignore[no-untyped-call]
            learner.step()
            total += loss.item() * len(batch)
        logits = model.logits(parts.validation)
        check_finite(logits, epoch)
        stopping.note(total / len(parts.train), validation_auc(label, parts, logits))
        if stopping.is_best:
            learner.keep_best()
        if on_epoch is not None:
            on_epoch(EpochReport(epoch, plan.epochs, 1, 1, *stopping.history[-1]))
        if stopping.stop:
            break
    learner.restore_best()
    return model


def _take(rows: Mapping[str, Encoded], active: str, chosen: NDArray[np.int64]) -> tuple[Encoded, dict[str, Encoded]]:
    index = torch.from_numpy(chosen)
    taken = {party: encoded[index] for party, encoded in rows.items()}
    return taken.pop(active), taken
