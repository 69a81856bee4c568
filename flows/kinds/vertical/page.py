"""The parts of the report's page that a vertical job has. Every word of a user's is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ... import plots
from ...markup import METRICS, figure, table
from ...report import Summary
from ..aligned_report import linkage_section
from .report import evaluated, missing_metrics, rows, score_text


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Titles and bodies."""
    return [
        ("Result", _result(summary)),
        ("How it was trained", _training(summary)),
        ("Which patients are shared", linkage_section(summary, (summary["baselines"] or {}).get("linkage"))),
    ]


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    notes = []
    baselines = summary["baselines"]
    if baselines is not None:
        note = "A simulation: to compare, one process read the rows of all parties, which every policy here allows."
        if baselines["linkage"] is not None:  # only the demo knows the truth
            note += " It demonstrates, it is no benchmark: which columns and identities sit where is our arrangement."
        notes.append(note)
        if baselines["withheld_by"]:
            notes.append(f"The comparison is withheld by the policy of {' and '.join(baselines['withheld_by'])}.")
    for what, parties in summary["withheld"].items():
        notes += [f"{what.capitalize()} are withheld by {party}'s policy." for party in parties]
    return notes


def _result(summary: Summary) -> str:
    body = ""
    compared = rows(summary)
    if summary["metrics"].get("auc") or summary["baselines"]:
        header = ["", "AUC, 95 % interval", *(["logistic", "boosting"] if summary["baselines"] else [])]
        lines = []
        for row in compared:
            missing = missing_metrics(summary) if row["kind"] == "together" else ""
            cells = [escape(row["title"]), escape(score_text(row["network"], long=True) or missing)]
            if summary["baselines"]:
                cells += [escape(score_text(row[model])) for model in ("logistic", "boosting")]
            lines.append((cells, row["kind"] == "together"))
        body += table(header, [cells for cells, _ in lines], strong=[strong for _, strong in lines])
        held_out, gain = summary["split"]["test"], (summary["baselines"] or {}).get("gain")
        words = f"On {held_out:,} held-out patients. " if held_out is not None else ""
        if summary["baselines"]:
            words += f"Alone means one party's columns, with {summary['active']}'s label. "
        if gain is not None:
            words += (
                f"Gain over {gain['over']} alone, on the same patients: {gain['value']:+.3f} "
                f"({gain['low']:+.3f} to {gain['high']:+.3f})."
            )
        body += f"<p>{escape(words)}</p>"
        if summary["baselines"] and any(row["network"] for row in compared):
            key = "A dot: the job's own model. Below it: | logistic regression, ◇ boosting."
            body += figure(plots.auc_plot([row for row in compared if row["network"]], themed=True), key, wide=True)
    elif evaluated(summary):
        body += f"<p>The AUC is {escape(missing_metrics(summary))}.</p>"
    figures = ""
    if "roc" in summary["curves"]:
        figures += figure(plots.roc_plot(summary, themed=True), "ROC curve on held-out patients")
    if "calibration" in summary["curves"]:
        figures += figure(
            plots.calibration_plot(summary, themed=True), "Calibration on held-out patients (dotted: perfect)"
        )
    body += f'<div class="pair">{figures}</div>' if figures else ""
    others = [(name, summary["metrics"][name]) for name in METRICS if name != "auc" and name in summary["metrics"]]
    if others:
        body += table(
            ["together", "on held-out patients"], [[METRICS[name], _interval(metric)] for name, metric in others]
        )
    return body


def _interval(metric: Mapping[str, float | None]) -> str:
    text = f"{metric['value']:.3f}"
    return text if metric["low"] is None else f"{text} ({metric['low']:.3f} to {metric['high']:.3f})"


def _training(summary: Summary) -> str:
    split = summary["split"]
    known = [f"{count:,} patients to {what}" for count, what in (
        (split["train"], "learn from"), (split["validation"], "decide when to stop"), (split["test"], "judge by"),
    ) if count is not None]  # fmt: skip
    body = f"<p>{', '.join(known)}.</p>" if known else ""
    if summary["history"]:
        body += figure(plots.training_plot(summary, themed=True), wide=True)
    return body
