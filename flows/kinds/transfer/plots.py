"""The plot that only a transfer job has, drawn as `flows.plots` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ...plots import FAINT, INK, STYLE, TOGETHER, svg_of
from .report import CANDIDATES, title


def gate_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Cross-validated AUC of every model with its 95 % interval; the one that the gate keeps in colour.

    The dotted line is the target alone: what is left of it did harm.
    """
    validation, chosen = summary["validation"], summary["chosen"]
    rows = [(of, validation[of]["auc"]) for of in (*CANDIDATES, "distilled") if validation[of].get("auc")]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.52 * len(rows) + 1.05), layout="constrained")
        axes = figure.subplots()
        for y, (of, score) in enumerate(rows):
            colour = TOGETHER if of == chosen else FAINT if of == "distilled" else INK
            if score["low"] is not None:
                axes.plot([score["low"], score["high"]], [y, y], color=colour, linewidth=2.2)
            axes.plot([score["value"]], [y], "o", color=colour, markersize=7)
            axes.annotate(
                f"{score['value']:.3f}", (score["value"], y), (0, 7), textcoords="offset points", ha="center",
                color=colour, fontweight="bold" if of == chosen else "normal", fontsize=9,
            )  # fmt: skip
        if alone := validation["target"].get("auc"):
            axes.axvline(alone["value"], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(rows)), [title(summary, of) for of, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("AUC on shared patients, cross-validated, 95 % interval")
        return svg_of(figure, "gate", themed)
