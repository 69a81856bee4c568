"""The plots that only a horizontal job has, drawn as `flows.plots` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...plots import FAINT, FIRST, INK, STYLE, TOGETHER, svg_of
from .report import MAIN, main_of

MOST_COLUMNS = 40  # of the heat map: those that drift most
STRONG_SMD = 1.0  # drawn in full colour
_APART = 0.15  # of a party's two lines from its middle


def parties_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Every party alone and with the common model, with intervals; below them all patients together."""
    rows = [
        (name, main_of(summary, one["alone"]), main_of(summary, one["federated"])) for name, one in _models(summary)
    ]
    pooled = main_of(summary, summary["metrics"])
    if pooled is not None:
        rows.append(("all together", None, pooled))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.46 * len(rows) + 1.05), layout="constrained")
        axes = figure.subplots()
        for y, (_, alone, together) in enumerate(rows):
            apart = _APART if alone else 0.0
            if alone:
                _dot(axes, y - apart, alone, FAINT, hollow=True)
            if together:
                _dot(axes, y + apart, together, TOGETHER, hollow=False)
                axes.annotate(
                    f"{together['value']:.3f}", (together["value"], y + apart), (0, -4 if apart else 6),
                    textcoords="offset points", ha="center", va="top" if apart else "bottom", color=TOGETHER,
                    fontsize=8.5, fontweight="bold" if y == len(rows) - 1 and pooled else "normal",
                )  # fmt: skip
        if pooled is not None:
            axes.axvline(pooled["value"], color=TOGETHER, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        interval = ", 95 % interval" if summary["task"] == "binary" else ""
        axes.set_xlabel(f"{MAIN[summary['task']][1]} on held-out patients{interval}")
        return svg_of(figure, "parties", themed)


def rounds_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Validation score and losses by round, one above the other."""
    history, best = summary["history"], summary["best_round"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        _line(upper, history, "validation_score", TOGETHER)
        upper.set_title(f"validation {MAIN[summary['task']][1]}", loc="left", fontsize=10, color=TOGETHER)
        _line(lower, history, "loss", INK)
        _line(lower, history, "validation_loss", TOGETHER)
        lower.set_title("training loss", loc="left", fontsize=10, color=INK)
        lower.set_title("validation loss", loc="right", fontsize=10, color=TOGETHER)
        for axes in (upper, lower):
            axes.margins(y=0.15)
            if best is not None:
                axes.axvline(best, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        if best is not None:
            late = best > 0.7 * max(at["round"] for at in history)
            upper.annotate(
                f"round {best} is kept", (best, 0), (-4 if late else 4, 5), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="right" if late else "left", fontsize=9, color=INK,
            )  # fmt: skip
        lower.set_xlabel("round")
        lower.xaxis.get_major_locator().set_params(integer=True)
        return svg_of(figure, "rounds", themed)


def drift_columns(summary: Mapping[str, Any]) -> list[str]:
    """The columns of the heat map, in the job's order: where any party differs, at most `MOST_COLUMNS`."""
    most: dict[str, float] = {}
    for told in summary["drift"].values():
        for one in told:
            if one["smd"] is not None:
                most[one["column"]] = max(most.get(one["column"], 0.0), abs(one["smd"]))
    kept = sorted(most, key=lambda column: -most[column])[:MOST_COLUMNS]
    return [column for column in most if column in kept]


def drift_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Parties by columns: how far each party's mean lies from all, in standard deviations."""
    columns = drift_columns(summary)
    parties = [name for name, told in summary["drift"].items() if told]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(3.5, 1.1 + 0.34 * len(columns)), 0.3 * len(parties) + 1.4), layout="constrained")
        axes: Axes = figure.subplots()
        for y, name in enumerate(parties):
            found = {one["column"]: one["smd"] for one in summary["drift"][name]}
            for x, column in enumerate(columns):
                smd = found.get(column)
                if smd is None:
                    axes.text(x, y, "·", ha="center", va="center", color=FAINT)
                    continue
                colour, share = FIRST if smd > 0 else TOGETHER, min(1.0, abs(smd) / STRONG_SMD)
                cell = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour, alpha=max(0.04, share), linewidth=0)
                axes.add_patch(cell)
                if abs(smd) >= 0.05:
                    axes.text(x, y, f"{abs(smd):.1f}", ha="center", va="center", color=INK, fontsize=7)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(parties) - 0.5, -0.5)
        axes.set_yticks(range(len(parties)), parties)
        axes.set_xticks(range(len(columns)), [_short(column) for column in columns], rotation=60, ha="right",
                        rotation_mode="anchor", fontsize=8)  # fmt: skip
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg_of(figure, "drift", themed)


def _models(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The parties that told something of themselves."""
    return [(name, one) for name, one in summary["models"].items() if one["alone"] or one["federated"]]


def _dot(axes: Axes, y: float, score: Mapping[str, Any], colour: str, *, hollow: bool) -> None:
    if score["low"] is not None:
        axes.plot([score["low"], score["high"]], [y, y], color=colour, linewidth=1.6 if hollow else 2.2)
    inside = "none" if hollow else colour
    axes.plot([score["value"]], [y], "o", color=colour, markersize=6, markerfacecolor=inside, markeredgewidth=1.4)


def _line(axes: Axes, history: list[dict[str, Any]], name: str, colour: str) -> None:
    points = [(at["round"], at[name]) for at in history if at[name] is not None]
    if points:
        axes.plot(*zip(*points, strict=True), "-o", color=colour, linewidth=1.6, markersize=3)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
