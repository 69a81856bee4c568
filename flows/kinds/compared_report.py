"""What the reports say alike that compare models: scores and gains as words, a line a model, what the journal holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from ...parties.events import Metric
from ..journal import Journal
from ..report import cell

Line = tuple[Sequence[str], bool]  # the cells, and whether they are of the model that is kept


def scores_of(journal: Journal, of: str, part: str) -> dict[str, dict[str, float | None]]:
    """The metrics of one model on one part by their name, each with its interval and the rows that it stands for."""
    return {
        event.name: {"value": event.value, "low": event.low, "high": event.high, "rows": event.rows}
        for _, event in journal.of(Metric)
        if event.of == of and event.part == part and event.name != "best_epoch"
    }


def text_table(headers: Sequence[str], lines: Iterable[Line]) -> Table:
    """For the terminal: a line a model, the one that is kept in bold."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    for header in headers:
        table.add_column(escape(header))
    for cells, kept in lines:
        # So that a line fits 80 columns.
        narrow = (re.sub(r"(?<=\d) to (?=[+\-\d])", "–", escape(one)) for one in cells)
        table.add_row(*narrow, style="bold" if kept else None)
    return table


def markdown_table(headers: Sequence[str], lines: Iterable[Line]) -> list[str]:
    """The same, as lines of markdown."""
    found = ["| " + " | ".join(map(cell, headers)) + " |", "| --- " * len(headers) + "|"]
    return found + ["| " + " | ".join(map(cell, cells)) + " |" for cells, _ in lines]


def score_text(score: Mapping[str, Any] | None) -> str:
    """A metric with its interval where it has one: `0.797 (0.762 to 0.831)`; empty if there is none."""
    if not score:
        return ""
    text = f"{score['value']:.3f}"
    return text if score["low"] is None else f"{text} ({score['low']:.3f} to {score['high']:.3f})"


def gain_text(gain: Mapping[str, Any] | None) -> str:
    """A difference with its interval: `+0.041 (+0.012 to +0.070)`; empty if there is none."""
    if not gain:
        return ""
    text = f"{gain['value']:+.3f}"
    return text if gain["low"] is None else f"{text} ({gain['low']:+.3f} to {gain['high']:+.3f})"
