"""The report of a vertical job: its numbers, its table, what its page and its artifact hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from ....parties.events import Count, Curve, Metric
from ...journal import Journal
from ...report import Summary, cell, count_of, fingerprints, withheld
from ..aligned_report import linkage
from .baselines import Baselines
from .job import VerticalJob

TOPICS = {  # in the order of a job
    "agree": "the job itself",
    "align": "enciphered linkage keys",
    "setup": "shapes and settings",
    "train": "cut layers and gradients",
    "evaluate": "cut layers of held-out patients",
}
_PARTS = {"train": "train_rows", "validation": "validation_rows", "test": "test_rows"}
_TITLES = {
    "alone": "{party} alone",
    "all_rows": "{party} on all its rows",
    "together": "together, no row shared",
    "pooled": "pooled, forbidden in real life",
}


def summarise(job: VerticalJob, journal: Journal, baselines: Baselines | None = None) -> Summary:
    """What a vertical job adds to the summary of a run."""
    active = job.active.name
    return {
        "active": active,
        "shared": count_of(journal, "shared"),
        "split": {part: count_of(journal, name) for part, name in _PARTS.items()},
        "linkage": linkage(job, journal),
        "history": _history(journal),
        "best_epoch": next((int(e.value) for _, e in journal.of(Metric) if e.name == "best_epoch"), None),
        "metrics": {
            event.name: {"value": event.value, "low": event.low, "high": event.high}
            for _, event in journal.of(Metric)
            if event.part == "test" and event.epoch is None
        },
        "curves": {e.name: {"x": list(e.x), "y": list(e.y)} for _, e in journal.of(Curve) if e.part == "test"},
        "digests": {"alignment": fingerprints(journal, "alignment").get(active)},
        "withheld": withheld(
            journal, job.members, (active,), {"counts": (Count,), "metrics": (Metric,), "curves": (Curve,)}
        ),
        "baselines": baselines.model_dump(mode="json") if baselines else None,
    }


def rows(summary: Summary) -> list[dict[str, Any]]:
    """The comparison's rows, in the order of the table: title, kind, party, and a score or None by model.

    A score is ``{"auc", "low", "high"}``. Without baselines there is one row: what the parties reached together.
    """
    compared = (summary["baselines"] or {}).get("rows", [])
    auc = summary["metrics"].get("auc")
    together = {
        "kind": "together",
        "party": None,
        "network": {"auc": auc["value"], "low": auc["low"], "high": auc["high"]} if auc else None,
        "logistic": None,
        "boosting": None,
    }
    order = list(_TITLES)
    found = sorted([*compared, together], key=lambda row: order.index(row["kind"]))
    return [{**row, "title": _TITLES[row["kind"]].format(party=row["party"])} for row in found]


def text_table(summary: Summary) -> Table:
    """The result as the terminal shows it."""
    held_out = summary["split"]["test"]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    table.add_column(f"held-out patients {held_out:,}" if held_out else "held-out patients")
    table.add_column("AUC (95 % interval)")
    compared = summary["baselines"] is not None
    if compared:
        table.add_column("logistic")
        table.add_column("boosting")
    for row in rows(summary):
        style = "bold" if row["kind"] == "together" else None
        missing = missing_metrics(summary) if row["kind"] == "together" else ""
        others = [score_text(row[model]) for model in ("logistic", "boosting")] if compared else []
        table.add_row(
            escape(row["title"]), escape(score_text(row["network"], long=True) or missing), *others, style=style
        )
    return table


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    auc, baselines = summary["metrics"].get("auc"), summary["baselines"]
    if auc is None:
        shared = summary["shared"]
        found = f"{shared:,} shared patients" if shared is not None else "Shared patients found"
        return f"{found}; the AUC is {missing_metrics(summary)}" if summary["history"] or evaluated(summary) else found
    reached = f"Together {score_text({'auc': auc['value'], 'low': auc['low'], 'high': auc['high']}, long=True)} AUC"
    alone = [row for row in (baselines or {}).get("rows", []) if row["kind"] == "alone"]
    if not alone:
        return f"{reached} on held-out patients"
    others = ", ".join(f"{row['party']} alone {row['network']['auc']:.3f}" for row in alone)
    return f"{reached}; {others}"


def markdown(summary: Summary) -> list[str]:
    """The comparison, as the lines of a markdown table."""
    compared = summary["baselines"] is not None
    lines = ["| model | AUC (95 % interval) |" + (" logistic | boosting |" if compared else "")]
    lines.append("| --- | --- |" + (" --- | --- |" if compared else ""))
    for row in rows(summary):
        missing = missing_metrics(summary) if row["kind"] == "together" else ""
        others = [score_text(row[model]) for model in ("logistic", "boosting")] if compared else []
        cells = [row["title"], score_text(row["network"], long=True) or missing, *others]
        lines.append("| " + " | ".join(map(cell, cells)) + " |")
    return lines


def plot(summary: Summary) -> tuple[str, str] | None:
    """The ROC curve."""
    from ...plots import roc_plot  # with matplotlib, which the command line does not wait for

    return ("roc.svg", roc_plot(summary)) if "roc" in summary["curves"] else None


def closing_lines(summary: Summary) -> list[str]:
    """Rows and shared patients, as far as the policies publish them; in a simulation the truth and the gain too."""
    rows = {party: facts["rows"] for party, facts in summary["parties"].items()}
    known = [f"{party} {count:,}" for party, count in rows.items() if count is not None]
    lines = []
    if known and summary["shared"] is not None:
        lines.append(f"  rows    {'   '.join(known)}   shared patients found {summary['shared']:,}")
    compared = summary["baselines"] or {}
    if linkage := compared.get("linkage"):
        precision, recall = linkage["precision"], linkage["recall"]
        lines.append(f"  truth   {linkage['shared']:,} shared   precision {precision:.3f}   recall {recall:.3f}")
    if gain := compared.get("gain"):
        low, high = gain["low"], gain["high"]
        lines.append(f"  gain    {gain['value']:+.3f} AUC over {gain['over']} alone ({low:+.3f} to {high:+.3f})")
    return lines


def sections(summary: Summary) -> list[tuple[str, str]]:
    """The parts of the page that a vertical job has, as HTML."""
    from . import page  # with matplotlib

    return page.sections(summary)


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    from . import page

    return page.notes(summary)


def missing_metrics(summary: Summary) -> str:
    """Why there is no test AUC."""
    if summary["active"] in summary["withheld"]["metrics"]:
        return f"withheld by {summary['active']}'s policy"
    return "not evaluated"


def score_text(score: Mapping[str, float | None] | None, *, long: bool = False) -> str:
    """An AUC for people: `0.797`, or with its interval `0.797 (0.762 to 0.831)`; empty if there is none."""
    if score is None:
        return ""
    text = f"{score['auc']:.3f}"
    if long and score["low"] is not None and score["high"] is not None:
        text += f" ({score['low']:.3f} to {score['high']:.3f})"
    return text


def evaluated(summary: Summary) -> bool:
    """Whether the active party has judged the model."""
    return "evaluate" in summary["parties"][summary["active"]]["seconds"]


# --- below: out of the journal ---------------------------------------------------------------------------------------


def _history(journal: Journal) -> list[dict[str, Any]]:
    epochs: dict[int, dict[str, Any]] = {}
    for _, event in journal.of(Metric):
        if event.epoch is None:
            continue
        at = epochs.setdefault(event.epoch, {"epoch": event.epoch, "loss": None, "validation_auc": None})
        if (event.name, event.part) == ("log_loss", "train"):
            at["loss"] = event.value
        elif (event.name, event.part) == ("auc", "validation"):
            at["validation_auc"] = event.value
    return [epochs[epoch] for epoch in sorted(epochs)]
