"""Histograms of a pooled number column: their range, the bins that may be told, and the quantiles that follow.

The range comes from counts by magnitude. Fewer than `floor` patients lie beyond either end of it, and they are counted
in its end bins. Neighbouring bins are told as one until each holds at least `floor` patients; the edges of bands that
a table counts by are kept. Least and greatest value are edges of the bins that are told, and quantiles are worked out
from these bins alone: they give nothing away that the bins do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .counting import MAGNITUDES, Range
from .findings import HistogramBin, Quantile

Floats = NDArray[np.float64]
NOTHING = Range(0.0, 0.0)


def range_of(magnitudes: Floats, floor: int) -> Range:
    """The range of a column from its counts by magnitude; `NOTHING` if fewer values than the floor are known."""
    floor = max(floor, 1)
    if magnitudes.sum() < floor:
        return NOTHING
    edges = np.concatenate([[2 * MAGNITUDES[0]], MAGNITUDES, [2 * MAGNITUDES[-1]]])
    first = int(np.argmax(np.cumsum(magnitudes) >= floor))
    last = len(magnitudes) - 1 - int(np.argmax(np.cumsum(magnitudes[::-1]) >= floor))
    if first <= last:
        return Range(float(edges[first]), float(edges[last + 1]))
    # Fewer than two floors of values: an end would be told by the values beyond the other one. Both ends at once, then.
    half = len(magnitudes) // 2
    both = magnitudes[half:] + magnitudes[:half][::-1]
    bound = float(edges[half + 1 + int(np.argmax(np.cumsum(both) >= floor))])
    return Range(-bound, bound)


def merged(counts: Floats, cuts: Floats, edges: Sequence[float], floor: int) -> list[tuple[int, int]]:
    """Neighbouring bins that are told as one: (first, after the last). No group crosses one of the `edges`.

    A band between two edges that holds fewer than `floor` patients is one group, which `disclosure` keeps back.
    """
    if floor <= 1:
        return [(place, place + 1) for place in range(len(counts))]
    walls = [0, *(int(np.searchsorted(cuts, edge)) + 1 for edge in edges), len(counts)]
    groups: list[tuple[int, int]] = []
    for wall, next_wall in pairwise(walls):
        band: list[tuple[int, int]] = []
        start, held = wall, 0.0
        for place in range(wall, next_wall):
            held += counts[place]
            if held >= floor:
                band.append((start, place + 1))
                start, held = place + 1, 0.0
        if start < next_wall:
            band = [*band[:-1], (band[-1][0], next_wall)] if band else [(wall, next_wall)]
        groups += band
    return groups


def coarser(
    groups: Sequence[tuple[int, int]], factor: int, cuts: Floats, edges: Sequence[float]
) -> list[tuple[int, int]]:
    """So many neighbouring groups told as one; no group crosses one of the `edges`."""
    walls = {int(np.searchsorted(cuts, edge)) + 1 for edge in edges}
    found: list[tuple[int, int]] = []
    held = factor
    for start, end in groups:
        if held == factor or start in walls:
            found.append((start, end))
            held = 1
        else:
            found[-1] = (found[-1][0], end)
            held += 1
    return found


def told_bins(
    groups: Sequence[tuple[int, int]], cuts: Floats, one: Range, told: Sequence[int | None]
) -> list[HistogramBin]:
    """The bins with their edges. An end is open where a band reaches out of the range."""
    low = one.low if not len(cuts) or one.low < cuts[0] else None
    high = one.high if not len(cuts) or one.high > cuts[-1] else None
    edges = [low, *(float(cut) for cut in cuts), high]
    return [HistogramBin(edges[start], edges[end], count) for (start, end), count in zip(groups, told, strict=True)]


def quantiles(
    bins: Sequence[HistogramBin], probabilities: Sequence[float], known: tuple[int, int], folded: int | None, floor: int
) -> tuple[Quantile, ...]:
    """Quantiles (linear between order statistics, as pandas has them) from bins that are told.

    `known` bounds how many values there are. Bin `folded` holds up to `floor` − 1 patients without a value; a bin whose
    count is not told may hold any number that is left.
    """
    least = np.array([float(one.count or 0) for one in bins])
    if folded is not None:
        least[folded] = max(0.0, least[folded] - (floor - 1))
    loose = np.array([one.count is None or place == folded for place, one in enumerate(bins)])
    room = max(0.0, known[1] - least.sum())  # for values that may lie in any of the loose bins
    later = least.sum() - np.cumsum(least) + np.where(np.cumsum(loose) < loose.sum(), room, 0.0)
    surely = np.maximum(np.cumsum(least), known[0] - later)  # of values up to the end of each bin, at least this many
    perhaps = np.cumsum(least) + np.where(np.cumsum(loose) > 0, room, 0.0)  # and at most this many
    found = []
    for probability in probabilities:
        first = max(0.0, probability * (known[0] - 1))
        last = max(0.0, probability * (known[1] - 1))
        if floor > 1 and (first + 1 < floor or known[0] - last < floor):
            found.append(Quantile(probability, None, None, None))
            continue
        start = int(np.argmax(perhaps > math.floor(first)))
        beyond = surely > math.ceil(last)
        end = int(np.argmax(beyond)) if beyond.any() else len(bins) - 1
        low, high = bins[start].low, bins[end].high
        if low is None or high is None:
            found.append(Quantile(probability, None, None, None))
            continue
        before = surely[start - 1] if start else 0.0
        inside = max(surely[end] - before, 1.0)
        share = min(1.0, max(0.0, ((first + last) / 2 + 0.5 - before) / inside))
        found.append(Quantile(probability, low, high, float(low + share * (high - low))))
    return tuple(found)


def bounds(bins: Sequence[HistogramBin], floor: int) -> tuple[float | None, float | None]:
    """The lowest edge with at least `floor` patients below it, and the highest with as many above it."""
    floor = max(floor, 1)
    return _bound([(one.high, one.count) for one in bins], floor), _bound(
        [(one.low, one.count) for one in reversed(bins)], floor
    )


def _bound(bins: Sequence[tuple[float | None, int | None]], floor: int) -> float | None:
    held = 0
    for edge, count in bins:
        held += count or 0
        if held >= floor:
            return edge
    return None
