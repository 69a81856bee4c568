"""The plot that only a finetune job has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...plots import INK, TOGETHER, intervals_plot
from .report import CANDIDATES, main_of, name_of, title


def models_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Every model on held-out patients; in colour what the gate keeps.

    The dotted line is the start as it is: left of it, training on did harm.
    """
    scores = {of: main_of(summary, of, "test") for of in CANDIDATES}
    rows = [
        (name_of(summary, of), score, TOGETHER if of == summary["chosen"] else INK)
        for of, score in scores.items()
        if score
    ]
    start = scores["start"]
    interval = ", 95 % interval" if summary["task"] == "binary" else ""
    words = f"{title(summary)} on held-out patients{interval}"
    return intervals_plot(rows, start["value"] if start else None, words, "models", themed=themed)
