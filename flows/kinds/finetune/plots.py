"""The plot that only a finetune job has, drawn as `flows.plots` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ...plots import FAINT, INK, STYLE, TOGETHER, svg_of
from .report import CANDIDATES, main_of, name_of, title


def models_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Every model on held-out patients, with its 95 % interval; the one that the gate keeps in colour.

    The dotted line is the start as it is: left of it, training on did harm.
    """
    scores = {of: main_of(summary, of, "test") for of in CANDIDATES}
    rows = [(of, score) for of, score in scores.items() if score]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.52 * len(rows) + 1.05), layout="constrained")
        axes = figure.subplots()
        for y, (of, score) in enumerate(rows):
            kept = of == summary["chosen"]
            colour = TOGETHER if kept else INK
            if score["low"] is not None:
                axes.plot([score["low"], score["high"]], [y, y], color=colour, linewidth=2.2)
            axes.plot([score["value"]], [y], "o", color=colour, markersize=7)
            axes.annotate(
                f"{score['value']:.3f}", (score["value"], y), (0, 7), textcoords="offset points", ha="center",
                color=colour, fontweight="bold" if kept else "normal", fontsize=9,
            )  # fmt: skip
        if start := scores["start"]:
            axes.axvline(start["value"], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(rows)), [name_of(summary, of) for of, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        interval = ", 95 % interval" if summary["task"] == "binary" else ""
        axes.set_xlabel(f"{title(summary)} on held-out patients{interval}")
        return svg_of(figure, "models", themed)
