"""The plots of a report, as SVG text.

Each is drawn on a `Figure` of its own, without pyplot's global state. Colours are Okabe and Ito's, which people with
any kind of colour vision tell apart, and lines differ in their dashes too. Inside the page colours are CSS variables,
so that a plot follows the reader's light or dark theme. Kinds of job that need other plots draw them with the same
`STYLE` and `svg_of`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colour as matplotlib writes it → the page's variable for it.
INK, FAINT, PAPER = "#22262a", "#9aa3ab", "#ffffff"
TOGETHER, FIRST, SECOND = "#0072b2", "#d55e00", "#009e73"
THIRD, FOURTH = "#cc79a7", "#b58900"  # the last darker than theirs, to be seen on white
_VARIABLES = {
    INK: "ink", FAINT: "faint", PAPER: "paper",
    TOGETHER: "together", FIRST: "first", SECOND: "second", THIRD: "third", FOURTH: "fourth",
}  # fmt: skip
SERIES = [  # colours and dashes of lines that stand side by side
    (TOGETHER, "solid"), (FIRST, (0, (5, 2))), (SECOND, (0, (1.5, 1.5))), (THIRD, (0, (6, 1.5, 1.5, 1.5))),
    (FOURTH, (0, (3, 1))),
]  # fmt: skip
_ALONE = SERIES[1:3]
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, and it can be selected
    "text.parse_math": False,  # a dollar in a user's words is a dollar
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "lines.solid_capstyle": "round",
}


def auc_plot(rows: Sequence[Mapping[str, Any]], *, themed: bool = False) -> str:
    """Test AUC of every model with its 95 % interval; logistic regression and boosting beside the network."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.52 * len(rows) + 1.05), layout="constrained")
        axes = figure.subplots()
        for y, row in enumerate(rows):
            colour = TOGETHER if row["kind"] == "together" else INK
            score = row["network"]
            if score is not None:
                if score["low"] is not None:
                    axes.plot([score["low"], score["high"]], [y, y], color=colour, linewidth=2.2)
                axes.plot([score["auc"]], [y], "o", color=colour, markersize=7)
                axes.annotate(
                    f"{score['auc']:.3f}", (score["auc"], y), (0, 7), textcoords="offset points", ha="center",
                    color=colour, fontweight="bold" if row["kind"] == "together" else "normal", fontsize=9,
                )  # fmt: skip
            for model, marker, size in (("logistic", "|", 8), ("boosting", "D", 4.5)):
                other = row[model]
                if other is not None:
                    axes.plot([other["auc"]], [y + 0.24], marker, color=FAINT, markersize=size,
                              markerfacecolor="none", markeredgewidth=1.3)  # fmt: skip
        together = next((row["network"]["auc"] for row in rows if row["kind"] == "together" and row["network"]), None)
        if together is not None:
            axes.axvline(together, color=TOGETHER, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        axes.set_yticks(range(len(rows)), [row["title"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("AUC on held-out patients, 95 % interval")
        return svg_of(figure, "auc", themed)


def intervals_plot(
    rows: Sequence[tuple[str, Mapping[str, Any], str]],
    beside: float | None,
    words: str,
    name: str,
    *,
    themed: bool = False,
) -> str:
    """A score a row with its 95 % interval: what it is of, the score (`value`, `low`, `high`), its colour.

    What is drawn in `TOGETHER` stands out. A dotted line at `beside` is what the others are compared with.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.52 * len(rows) + 1.05), layout="constrained")
        axes = figure.subplots()
        for y, (_, score, colour) in enumerate(rows):
            if score["low"] is not None:
                axes.plot([score["low"], score["high"]], [y, y], color=colour, linewidth=2.2)
            axes.plot([score["value"]], [y], "o", color=colour, markersize=7)
            axes.annotate(
                f"{score['value']:.3f}", (score["value"], y), (0, 7), textcoords="offset points", ha="center",
                color=colour, fontweight="bold" if colour == TOGETHER else "normal", fontsize=9,
            )  # fmt: skip
        if beside is not None:
            axes.axvline(beside, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        axes.set_yticks(range(len(rows)), [title for title, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(words)
        return svg_of(figure, name, themed)


def roc_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """The ROC curve of the joint model, and of each party alone where a simulation has trained those."""
    with mpl.rc_context(STYLE):
        figure, axes = square("false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        labels = []
        compared = (summary.get("baselines") or {}).get("rows", [])
        alone = [row for row in compared if row["kind"] == "alone" and row["roc"]]
        for row, (colour, dashes) in zip(alone, _ALONE, strict=False):
            axes.plot(row["roc"]["x"], row["roc"]["y"], color=colour, linewidth=1.5, linestyle=dashes)
            labels.append((row["network"]["auc"], f"{row['party']} alone", colour))
        curve, auc = summary["curves"]["roc"], summary["metrics"].get("auc")
        axes.plot(curve["x"], curve["y"], color=TOGETHER, linewidth=2.4)
        labels.append((auc["value"] if auc else None, "together", TOGETHER))
        for place, (value, name, colour) in enumerate(sorted(labels, key=lambda label: label[0] or 0)):
            text = name if value is None else f"{name}  {value:.3f}"  # listed where no sensible curve runs
            axes.text(0.98, 0.06 + 0.075 * place, text, color=colour, ha="right", fontweight="bold")
        return svg_of(figure, "roc", themed)


def calibration_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Predicted against observed risk in groups of held-out patients."""
    with mpl.rc_context(STYLE):
        figure, axes = square("predicted risk", "observed share")
        curve = summary["curves"]["calibration"]
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.plot(curve["x"], curve["y"], "o-", color=TOGETHER, linewidth=1.8, markersize=5)
        return svg_of(figure, "calibration", themed)


def training_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Training loss and validation AUC by epoch, one above the other on one axis of epochs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        history, best = summary["history"], summary["best_epoch"]
        panels = ((upper, "validation_auc", "validation AUC", TOGETHER), (lower, "loss", "training loss", INK))
        for axes, name, title, colour in panels:
            points = [(at["epoch"], at[name]) for at in history if at[name] is not None]
            axes.plot(*zip(*points, strict=True), "-o", color=colour, linewidth=1.6, markersize=3) if points else None
            axes.set_title(title, loc="left", fontsize=10, color=colour)
            axes.margins(y=0.15)
            if best is not None:
                axes.axvline(best, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
        if best is not None:
            at_best = next((at["validation_auc"] for at in history if at["epoch"] == best), None)
            note = f"epoch {best} is kept" + (f", {at_best:.3f}" if at_best is not None else "")
            upper.annotate(note, (best, 0), (4, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
                           fontsize=9, color=INK)  # fmt: skip
        lower.set_xlabel("epoch")
        lower.xaxis.get_major_locator().set_params(integer=True)
        return svg_of(figure, "training", themed)


def square(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot of two shares."""
    figure = Figure(figsize=(4.2, 4.1), layout="constrained")
    axes: Axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", xlabel=x, ylabel=y)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    return figure, axes


def svg_of(figure: Figure, name: str, themed: bool) -> str:
    """The figure as an `<svg>` element that fits its frame; the same figure gives the same text."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):  # ids of several plots on one page must differ
        figure.savefig(buffer, format="svg", transparent=themed, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to groups, and they repeat from plot to plot
    if themed:
        text = re.sub(r'width="[0-9.]+pt" height="[0-9.]+pt"', 'role="img"', text, count=1)
        for colour, variable in _VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
    return text
