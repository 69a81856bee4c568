"""Aligned rows → parts and batches that every party derives for itself: indices never travel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..horizontal.order import Rows, batches, shuffled

__all__ = ["Parts", "Rows", "batches", "epoch_order", "shuffled", "split_rows"]


@dataclass(frozen=True)
class Parts:
    """Positions within the alignment."""

    train: Rows
    validation: Rows
    test: Rows


def split_rows(count: int, validation_share: float, test_share: float, seed: int, alignment_digest: str) -> Parts:
    """Split aligned rows at random into parts, each sorted. The digest makes the split one of this alignment alone."""
    order = shuffled(np.arange(count), f"split {seed} {alignment_digest}")
    test, validation = round(count * test_share), round(count * validation_share)
    return Parts(
        train=np.sort(order[test + validation :]),
        validation=np.sort(order[test : test + validation]),
        test=np.sort(order[:test]),
    )


def epoch_order(rows: Rows, seed: int, epoch: int) -> Rows:
    """The order of the training rows in one epoch (from 1)."""
    return shuffled(rows, f"epoch {seed} {epoch}")
