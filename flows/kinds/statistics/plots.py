"""The plots of a statistics job: survival curves, drawn as `flows.plots` draws, and histograms of a line's height."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plots import FAINT, INK, SERIES, STYLE, TOGETHER, svg_of
from .report import told_exactly

MOST_PANELS = 24
BARS = 36
MOST_DOTS = 60
_WIDTH, _HEIGHT = 150, 34  # of a small histogram


def columns_of(curve: Mapping[str, Any]) -> list[str | None]:
    """The columns by which a curve is told, one plot each; None alone if it is told of all patients only."""
    told = [one for one in curve["strata"] if one["steps"]]
    by = list(dict.fromkeys(one["column"] for one in told if one["column"] is not None))
    return [*by] if by else [None] if told else []


def survival_plot(curve: Mapping[str, Any], column: str | None, *, themed: bool = False) -> str:
    """Kaplan-Meier curves with their 95 % intervals: of all patients and of the levels of one column.

    A few levels share a plot, many get a panel each (the first `MOST_PANELS` that are told).
    """
    everyone = next((one for one in curve["strata"] if one["column"] is None and one["steps"]), None)
    strata = [one for one in curve["strata"] if one["column"] == column and one["steps"] and column is not None]
    name = "survival-" + hashlib.sha256(f"{curve['name']}\n{column}".encode()).hexdigest()[:12]
    with mpl.rc_context(STYLE):
        figure = _together(curve, everyone, strata) if len(strata) <= len(SERIES) else _panels(curve, everyone, strata)
        return svg_of(figure, name, themed)


def small_histogram(one: Mapping[str, Any]) -> str:
    """A number's histogram as a small `<svg>`; empty if none of it is told.

    Bins that are told are of many widths: they are shared out over bars of one width, as if even within each bin.
    """
    bins = [item for item in one["histogram"] if None not in (item["low"], item["high"], item["count"])]
    if not bins:
        return ""
    low, high = bins[0]["low"], bins[-1]["high"]
    if one["low"] is not None and one["high"] is not None and one["low"] < one["high"]:
        reach = 0.15 * (one["high"] - one["low"])  # beyond lie as few as may be told, perhaps far out
        low, high = max(low, one["low"] - reach), min(high, one["high"] + reach)
    width = (high - low) / BARS
    if width <= 0:
        return ""
    bars = [0.0] * BARS
    for item in bins:
        start, end = max(item["low"], low), min(item["high"], high)
        span = item["high"] - item["low"]
        for place in range(BARS):
            inside = min(end, low + (place + 1) * width) - max(start, low + place * width)
            if inside > 0 and span > 0:
                bars[place] += item["count"] * inside / span
    most, step = max(bars), _WIDTH / BARS
    if not most:
        return ""
    drawn = "".join(
        f'<rect x="{place * step:.1f}" y="{_HEIGHT - _HEIGHT * value / most:.1f}" width="{step - 0.6:.1f}" '
        f'height="{_HEIGHT * value / most:.1f}"/>'
        for place, value in enumerate(bars)
        if value
    )
    return (
        f'<svg class="small" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT + 1}" width="{_WIDTH}" height="{_HEIGHT + 1}">'
        f'<g fill="var(--together)">{drawn}</g>'
        f'<path d="M0 {_HEIGHT + 0.5}H{_WIDTH}" stroke="var(--faint)" stroke-width="1"/></svg>'
    )


def _together(
    curve: Mapping[str, Any], everyone: Mapping[str, Any] | None, strata: Sequence[Mapping[str, Any]]
) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    ends: list[tuple[float, str, str]] = []
    if everyone is not None:
        alone = not strata
        _draw(axes, curve, everyone, TOGETHER if alone else FAINT, "solid", interval=alone)
        ends.append((everyone["steps"][-1]["survival"], "all patients", TOGETHER if alone else FAINT))
    for one, (colour, dashes) in zip(strata, SERIES, strict=False):
        _draw(axes, curve, one, colour, dashes, interval=True)
        ends.append((one["steps"][-1]["survival"], one["level"], colour))
    _frame(axes, curve)
    axes.set_xlabel("time")
    axes.set_ylabel("survival")
    _label(axes, ends)
    return figure


def _panels(
    curve: Mapping[str, Any], everyone: Mapping[str, Any] | None, strata: Sequence[Mapping[str, Any]]
) -> Figure:
    shown = strata[:MOST_PANELS]
    across = 4
    down = ceil(len(shown) / across)
    figure = Figure(figsize=(8.0, 1.55 * down + 0.3), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        if everyone is not None:
            _draw(axes, curve, everyone, FAINT, (0, (2, 2)), interval=False)
        _draw(axes, curve, shown[place], TOGETHER, "solid", interval=True)
        axes.set_title(_short(shown[place]["level"]), loc="left", fontsize=9, color=INK)
        _frame(axes, curve)
    return figure


def _draw(
    axes: Axes, curve: Mapping[str, Any], one: Mapping[str, Any], colour: str, dashes: Any, *, interval: bool
) -> None:
    steps = one["steps"]
    times = [0.0, *(step["time"] for step in steps)]
    survival, low, high = ([1.0, *(step[name] for step in steps)] for name in ("survival", "low", "high"))
    exact = told_exactly(curve, steps)  # else nothing is known between two steps but that the curve falls
    style = "steps-post" if exact else "default"
    axes.plot(times, survival, drawstyle=style, color=colour, linewidth=1.7, linestyle=dashes)
    if not exact and len(steps) <= MOST_DOTS:
        axes.plot(times[1:], survival[1:], "o", color=colour, markersize=3)
    if interval:
        axes.fill_between(times, low, high, step="post" if exact else None, color=colour, alpha=0.13, linewidth=0)


def _frame(axes: Axes, curve: Mapping[str, Any]) -> None:
    axes.set(xlim=(0, curve["until"]), ylim=(0, 1.02))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.axhline(0.5, color=FAINT, linewidth=0.6, linestyle=(0, (2, 3)), zorder=0)


def _label(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each curve beside its end, none on top of another."""
    place = -1.0
    for survival, name, colour in sorted(ends, key=lambda end: end[0]):
        place = max(survival, place + 0.075)
        axes.annotate(
            _short(name), (1, place), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", color=colour, fontsize=9, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
