"""Many parties' updates → one: the mean, and what stands a few parties that send anything they like.

All take a matrix ``(parties, size)`` of float32 and give a vector ``(size,)`` of float64. The robust ones give every
party the same weight, since a party that lies would claim many rows; they cannot work under secure aggregation, where
nobody sees a single update.

- coordinate median and trimmed mean: Yin et al., "Byzantine-robust distributed learning", ICML 2018
- Krum and Multi-Krum: Blanchard et al., "Machine learning with adversaries", NeurIPS 2017
- geometric median: Pillutla et al., "Robust aggregation for federated learning", IEEE TSP 2022 (smoothed Weiszfeld)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
AggregatorKind = Literal["mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]

_COLUMNS = 1 << 16  # at a time, so that sorted and widened copies stay small
_SMOOTHING = 1e-6  # Pillutla et al.'s ν: no distance counts as smaller
_ITERATIONS, _SETTLED = 1000, 1e-10


@dataclass(frozen=True)
class Aggregator:
    """How updates become one. `byzantine` is how many parties may lie (f); `selected` how many Multi-Krum averages."""

    kind: AggregatorKind = "mean"
    byzantine: int = 0
    selected: int | None = None  # None: as many as can be, n - f - 2

    @property
    def linear(self) -> bool:
        """Whether a sum over parties is all that it needs."""
        return self.kind == "mean"


def aggregate(aggregator: Aggregator, matrix: Matrix) -> Floats:
    """What the aggregator makes of a matrix ``(parties, size)``, every party with the same weight."""
    f = aggregator.byzantine
    match aggregator.kind:
        case "mean":
            return weighted_mean((row, 1.0) for row in matrix)
        case "median":
            return median(matrix)
        case "trimmed_mean":
            return trimmed_mean(matrix, f)
        case "krum":
            return krum(matrix, f)
        case "multi_krum":
            return multi_krum(matrix, f, aggregator.selected or len(matrix) - f - 2)
        case "geometric_median":
            return geometric_median(matrix)


def weighted_mean(rows: Iterable[tuple[NDArray[np.float32], float]]) -> Floats:
    """The mean of (row, weight) pairs, taken one at a time: only one row has to be held. Of none it is empty."""
    total: Floats | None = None
    weights, space = 0.0, np.empty(_COLUMNS)
    for row, weight in rows:
        weights += weight
        if total is None:
            total = row * np.float64(weight)
            continue
        for start in range(0, len(row), _COLUMNS):
            part = row[start : start + _COLUMNS]
            total[start : start + _COLUMNS] += np.multiply(part, weight, out=space[: len(part)], dtype=np.float64)
    if total is None:
        return np.zeros(0)
    total /= weights
    return total


def median(matrix: Matrix) -> Floats:
    """The median of each coordinate."""
    return _by_columns(matrix, lambda part, _: np.median(part.astype(np.float64), axis=0))


def trimmed_mean(matrix: Matrix, byzantine: int) -> Floats:
    """The mean of each coordinate without its `byzantine` largest and smallest values: 2f < n."""
    kept = slice(byzantine, len(matrix) - byzantine)
    return _by_columns(matrix, lambda part, _: np.mean(np.sort(part, axis=0)[kept], axis=0, dtype=np.float64))


def krum(matrix: Matrix, byzantine: int) -> Floats:
    """The update that lies closest to its n - f - 2 nearest neighbours (the first of equals): n >= 2f + 3."""
    return np.array(matrix[int(np.argmin(krum_scores(matrix, byzantine)))], dtype=np.float64)


def multi_krum(matrix: Matrix, byzantine: int, selected: int) -> Floats:
    """The mean of the `selected` updates with the best scores."""
    chosen = np.sort(np.argsort(krum_scores(matrix, byzantine), kind="stable")[:selected])
    return weighted_mean((matrix[place], 1.0) for place in chosen)


def krum_scores(matrix: Matrix, byzantine: int) -> Floats:
    """Each update's sum of squared distances to its n - f - 2 nearest others, ``(parties,)``."""
    products = _products(matrix)
    squares = np.diag(products)
    distances: Floats = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    np.fill_diagonal(distances, np.inf)
    nearest: Floats = np.sort(distances, axis=1)[:, : max(1, len(matrix) - byzantine - 2)]
    return nearest @ np.ones(nearest.shape[1])


def geometric_median(matrix: Matrix) -> Floats:
    """The point with the smallest sum of distances to all updates.

    Every step of Weiszfeld's is a weighted mean of the rows; so the search runs over their weights, and distances come
    from the rows' products. It runs about the coordinate median and begins near it: begun at the mean, it would end
    early, or lose all digits, where one row is 10²⁰ times as far away as the others.
    """
    centre = median(matrix)
    products = _products(matrix, centre)
    away = np.sqrt(np.diag(products))
    weights: Floats = 1.0 / np.maximum(_SMOOTHING, np.maximum(away, np.median(away)))
    weights /= weights.sum()
    for _ in range(_ITERATIONS):
        squares = np.diag(products) - 2 * products @ weights + weights @ products @ weights
        found = 1.0 / np.maximum(_SMOOTHING, np.sqrt(np.maximum(squares, 0.0)))
        found /= found.sum()
        if np.abs(found - weights).max() < _SETTLED:
            break
        weights = found
    return centre + _by_columns(matrix, lambda part, start: weights @ (part - centre[start : start + part.shape[1]]))


def _products(matrix: Matrix, centre: Floats | None = None) -> Floats:
    """The products of all pairs of rows, less the centre, ``(parties, parties)``."""
    found = np.zeros((len(matrix), len(matrix)))
    for start in range(0, matrix.shape[1], _COLUMNS):
        part = matrix[:, start : start + _COLUMNS].astype(np.float64)
        if centre is not None:
            part -= centre[start : start + _COLUMNS]
        found += part @ part.T
    return found


def _by_columns(matrix: Matrix, function: Callable[[Matrix, int], Floats]) -> Floats:
    found = np.empty(matrix.shape[1])
    for start in range(0, matrix.shape[1], _COLUMNS):
        found[start : start + _COLUMNS] = function(matrix[:, start : start + _COLUMNS], start)
    return found
