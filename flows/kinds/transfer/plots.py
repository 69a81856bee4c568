"""The plot that only a transfer job has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...plots import FAINT, INK, TOGETHER, intervals_plot
from .report import CANDIDATES, title


def gate_plot(summary: Mapping[str, Any], *, themed: bool = False) -> str:
    """Cross-validated AUC of every model; in colour what the gate keeps.

    The dotted line is the target alone: what is left of it did harm.
    """
    validation, chosen = summary["validation"], summary["chosen"]
    rows = [
        (title(summary, of), validation[of]["auc"], TOGETHER if of == chosen else FAINT if of == "distilled" else INK)
        for of in (*CANDIDATES, "distilled")
        if validation[of].get("auc")
    ]
    alone = validation["target"].get("auc")
    words = "AUC on shared patients, cross-validated, 95 % interval"
    return intervals_plot(rows, alone["value"] if alone else None, words, "gate", themed=themed)
