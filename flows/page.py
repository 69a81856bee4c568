"""The report as one HTML page: no script, no other file, no request to anywhere. Every word of a user's is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ..parties.events import Phase
from . import plots
from .check import who_learns_what
from .jobs import VerticalJob
from .markup import PAGE, bar, figure, items, table
from .report import Summary, missing_metrics, rows, score_text

_METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "prevalence": "share with the outcome",
}
_TOPICS = {  # in the order of a job; a test holds that none is missing
    "agree": "the job itself",
    "align": "enciphered linkage keys",
    "setup": "shapes and settings",
    "train": "cut layers and gradients",
    "evaluate": "cut layers of held-out patients",
}


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    auc, baselines = summary["metrics"].get("auc"), summary["baselines"]
    if auc is None:
        shared = summary["shared"]
        found = f"{shared:,} shared patients" if shared is not None else "Shared patients found"
        return f"{found}; the AUC is {missing_metrics(summary)}" if summary["history"] or _evaluated(summary) else found
    reached = f"Together {score_text({'auc': auc['value'], 'low': auc['low'], 'high': auc['high']}, long=True)} AUC"
    alone = [row for row in (baselines or {}).get("rows", []) if row["kind"] == "alone"]
    if not alone:
        return f"{reached} on held-out patients"
    others = ", ".join(f"{row['party']} alone {row['network']['auc']:.3f}" for row in alone)
    return f"{reached}; {others}"


def page(summary: Summary) -> str:
    """The whole page."""
    job = VerticalJob.model_validate(summary["job"])
    sections = [
        ("Result", _result(summary)),
        ("How it was trained", _training(summary)),
        ("Which patients are shared", _linkage(summary)),
        ("What left whom", _traffic(summary)),
        (
            "Who learns what",
            items(f"<b>{escape(who)}</b>: {escape(what)}" for who, what in who_learns_what(job)),
        ),
        ("Time", _time(summary)),
        ("For an auditor", _digests(summary)),
    ]
    return PAGE.substitute(
        title=escape(job.name),
        purpose=escape(job.purpose),
        headline=escape(headline(summary)),
        facts=" · ".join(map(escape, _facts(summary))),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in _notes(summary)),
        sections="".join(f"<section><h2>{title}</h2>{body}</section>" for title, body in sections if body),
    )


def _facts(summary: Summary) -> list[str]:
    facts = [summary["run"], summary["started"].replace("T", " ")[:16] + " UTC", f"{summary['seconds']:.0f} s"]
    if summary["attempts"] > 1:
        facts.append(f"attempt {summary['attempts']}" + (", resumed" if summary["resumed"] else ""))
    return facts


def _notes(summary: Summary) -> list[str]:
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
    elif _evaluated(summary):
        body += f"<p>The AUC is {escape(missing_metrics(summary))}.</p>"
    figures = ""
    if "roc" in summary["curves"]:
        figures += figure(plots.roc_plot(summary, themed=True), "ROC curve on held-out patients")
    if "calibration" in summary["curves"]:
        figures += figure(
            plots.calibration_plot(summary, themed=True), "Calibration on held-out patients (dotted: perfect)"
        )
    body += f'<div class="pair">{figures}</div>' if figures else ""
    others = [(name, summary["metrics"][name]) for name in _METRICS if name != "auc" and name in summary["metrics"]]
    if others:
        body += table(
            ["together", "on held-out patients"], [[_METRICS[name], _interval(metric)] for name, metric in others]
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


def _linkage(summary: Summary) -> str:
    shared = summary["shared"]
    sizes = [f"{name} has {p['rows']:,}" for name, p in summary["parties"].items() if p["rows"] is not None]
    words = [f"{shared:,} shared patients" if shared is not None else "", *sizes]
    body = f"<p>{escape('; '.join(filter(None, words)))}.</p>" if any(words) else ""
    truth = (summary["baselines"] or {}).get("linkage")
    if truth is not None:
        body += (
            f"<p>In truth they share {truth['shared']:,}: precision {truth['precision']:.4f}, "
            f"recall {truth['recall']:.4f}. Only a demo can know that.</p>"
        )
    if not summary["linkage"]:
        return body
    most = max((at["matched"] or 0 for at in summary["linkage"]), default=0)
    header = ["pass", "identifiers", "matched", ""]
    header += [f"{name}: keys used (missing, repeated)" for name in summary["parties"]]
    lines = []
    for at in summary["linkage"]:
        cells = [
            str(at["pass"]),
            escape(", ".join(at["identifiers"])),
            _count(at["matched"]),
            bar(at["matched"], most),
        ]
        for keys in at["parties"].values():
            told = None not in keys.values()
            cells.append(f"{keys['used']:,} ({keys['null']:,}, {keys['repeated']:,})" if told else "withheld")
        lines.append(cells)
    return body + table(header, lines)


def _traffic(summary: Summary) -> str:
    order = list(_TOPICS)
    sent = [
        (name, item)
        for name, party in summary["parties"].items()
        for item in sorted(party["traffic"], key=lambda item: order.index(item["topic"]))
        if item["sent"]
    ]
    most = max((item["sent"] for _, item in sent), default=0)
    cells = [
        [escape(name), escape(item["peer"]), _TOPICS[item["topic"]], f"{item['sent']:,}",
         bar(item["sent"], most)]
        for name, item in sent
    ]  # fmt: skip
    if not cells:
        return ""
    totals = ", ".join(f"{name} {nbytes / 1e6:.2f} MB" for name, nbytes in summary["bytes_left"].items())
    return f"<p>In all: {escape(totals)}. No row and no identifier is among it.</p>" + table(
        ["from", "to", "what", "bytes", ""], cells
    )


def _time(summary: Summary) -> str:
    parties = summary["parties"]
    phases = [phase.value for phase in Phase if any(phase.value in party["seconds"] for party in parties.values())]
    most = max((seconds for party in parties.values() for seconds in party["seconds"].values()), default=0)
    cells = []
    for phase in phases:
        seconds = [party["seconds"].get(phase) for party in parties.values()]
        known = [one for one in seconds if one is not None]
        cells.append([phase, *("" if one is None else f"{one:.1f} s" for one in seconds), bar(max(known), most)])
    return table(["phase", *map(escape, parties), ""], cells) if cells else ""


def _digests(summary: Summary) -> str:
    digests = summary["digests"]
    found = [("job", digests["job"]), ("alignment", digests["alignment"])]
    found += [(f"{party}'s part of the model", value) for party, value in digests["models"].items()]
    found += [(f"head of {party}'s ledger", value) for party, value in digests["ledgers"].items()]
    cells = [[escape(name), f"<code>{escape(value)}</code>"] for name, value in found if value]
    note = "Note these down elsewhere: they show a ledger that was cut off, a model or a job that was changed."
    return f"<p>{note}</p>" + table(["", "SHA-256"], cells)


def _evaluated(summary: Summary) -> bool:
    return Phase.EVALUATE.value in summary["parties"][summary["active"]]["seconds"]


def _count(value: int | None) -> str:
    return "withheld" if value is None else f"{value:,}"
