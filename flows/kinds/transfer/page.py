"""The parts of the report's page that a transfer job has. Every word of a user's is escaped."""

from __future__ import annotations

from html import escape

from ... import plots as common
from ...markup import figure, table
from ...report import Summary, job_in
from ..aligned_report import linkage_section
from ..compared_report import score_text
from . import plots
from .job import TransferJob
from .report import CANDIDATES, harm, headers, lines, title, unlabelled, verdict


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Titles and bodies."""
    return [
        ("Result", _result(summary)),
        ("How it was judged", _judging(summary)),
        ("What the source gave", _given(summary)),
        ("Which patients are shared", linkage_section(summary)),
    ]


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    found = []
    gain, worse = summary["validation"]["transferred"].get("auc_gain"), harm(summary)
    if worse and summary["chosen"] == "target":
        found.append("The transfer did harm: with what the source gave, the target's model is worse than without.")
    elif worse and summary["chosen"] != "transferred":
        found.append(worse)
    elif gain and gain["low"] is not None and gain["low"] < 0 < gain["value"]:
        found.append("The gain of the transfer may be chance: its interval reaches below zero.")
    if unlabelled(summary):
        found.append("The target has no labels: its model repeats what the source says, and nothing here judges it.")
    for what, parties in summary["withheld"].items():
        found += [f"{what.capitalize()} are withheld by {party}'s policy." for party in parties]
    return found


def _result(summary: Summary) -> str:
    told = lines(summary)
    cells = [[escape(cell) for cell in row] for row, _ in told]
    body = table([escape(one) for one in headers(summary)], cells, strong=[strong for _, strong in told])
    if summary["chosen"] is None:
        return body
    body += f"<p>The gate {escape(verdict(summary))}</p>"
    key = "In colour what the gate keeps. The dotted line is the target alone: what lies left of it did harm."
    body += figure(plots.gate_plot(summary, themed=True), key, wide=True)
    if "roc" in summary["curves"]:
        roc = {**summary, "metrics": {"auc": summary["validation"][summary["chosen"]].get("auc")}}
        curve = figure(common.roc_plot(roc, themed=True), "ROC curve of the model that is kept")
        body += f'<div class="pair">{curve}</div>'
    return body


def _judging(summary: Summary) -> str:
    if summary["chosen"] is None:
        return ""
    target = escape(summary["target"])
    labelled, own = summary["labelled"], summary["own_labelled"]
    on = f"{labelled:,} shared patients" if labelled is not None else "the shared patients"
    extra = f" and from {own:,} further labelled patients of its own" if own else ""
    body = (
        f"<p>On {on} whose outcome {target} knows, by cross-validation: each is scored by a model that has not seen "
        f"them. Every model learns from the others{extra}. “What the gate keeps” is judged by a second "
        "cross-validation around the gate, so that choosing the best one does not flatter it.</p>"
    )
    losses = [(of, summary["validation"][of].get("log_loss")) for of in CANDIDATES]
    cells = [[escape(title(summary, of)), f"{loss['value']:.3f}"] for of, loss in losses if loss]
    body += (
        "<p>The gate goes by the log loss, which sees by how much a forecast is right; the AUC sees ranks alone.</p>"
    )
    body += table(["cross-validated", "log loss"], cells) if cells else ""
    held_out = [(of, summary["test"][of].get("auc")) for of in (*CANDIDATES, "chosen")]
    if summary["test"]["split"]:
        rows = next((score["rows"] for _, score in held_out if score), None)
        on = f"the {rows:,} shared patients" if rows else "those shared patients"
        body += f"<p>Where both sides train on together, all are compared on {on} that were held out of it.</p>"
        body += table(
            ["held out", "AUC"], [[escape(title(summary, of)), score_text(one)] for of, one in held_out if one]
        )
    return body


def _given(summary: Summary) -> str:
    job = job_in(summary)
    assert isinstance(job, TransferJob)
    source, target = escape(job.source.name), escape(job.target.name)
    supervised = job.pretraining.how == "supervised"
    what = "a score, one number" if job.width == 1 else f"an embedding, {job.width} numbers"
    body = (
        f"<p>{source} learnt from all its rows {'by its own' if supervised else 'without a'} label and gave {target} "
        f"{what} of each shared patient, once. Each is out of fold: {job.pretraining.folds} models were trained, each "
        "without a part of the shared patients, and each patient is told of by the one that has not seen them. So they "
        "are not trusted too much; the source's label of a patient can still be told by comparing patients alike.</p>"
    )
    if job.split.at_least is None:
        return body
    carried = f": those of a patient trained on carry {source}'s own label of that patient as well"
    return body + (
        f"<p>Where both sides train on together, {source} sends {job.pretraining.width} numbers of each patient anew "
        f"in every epoch, which are not out of fold{carried if supervised else ''}.</p>"
    )
