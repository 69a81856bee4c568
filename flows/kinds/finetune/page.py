"""The parts of the report's page that a finetune job has. Every word of a user's is escaped."""

from __future__ import annotations

from html import escape

from ...markup import METRICS, figure, table
from ...report import Summary
from ..compared_report import score_text
from . import plots
from .report import CANDIDATES, harm, headers, lines, main_of, name_of, title, verdict

_HELD_OUT_BY = {
    "start": "{party} took part in the training of the starting model: what is held out here was held out there.",
    "job": "{party} took no part in the training of the starting model: what is held out is as this job says.",
}


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Titles and bodies."""
    return [("Result", _result(summary)), ("How it was tuned", _tuning(summary))]


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    found = []
    if worse := harm(summary):
        found.append(f"On held-out patients {worse}.")
    gain = summary["models"]["tuned"]["test"].get("auc_gain")
    if gain and gain["low"] < 0 < gain["value"]:
        found.append("That tuning gains over the start may be chance: its interval reaches below zero.")
    for what, parties in summary["withheld"].items():
        found += [f"{what.capitalize()} are withheld by {party}'s policy." for party in parties]
    return found


def _result(summary: Summary) -> str:
    told = lines(summary)
    cells = [[escape(cell) for cell in row] for row, _ in told]
    body = table([escape(one) for one in headers(summary)], cells, strong=[strong for _, strong in told])
    if summary["chosen"] is not None:
        body += f"<p>The gate {escape(verdict(summary))}.</p>"
    if not any(main_of(summary, of, "test") for of in CANDIDATES):
        return body
    key = (
        "In colour what the gate keeps. The dotted line is the starting model as it is: left of it, training did harm."
    )
    body += figure(plots.models_plot(summary, themed=True), key, wide=True)
    names = [name for name in METRICS if any(name in summary["models"][of]["test"] for of in CANDIDATES)]
    others = [name for name in names if name != summary["main"]]
    rows = [
        [METRICS[name], *(escape(score_text(summary["models"][of]["test"].get(name))) for of in CANDIDATES)]
        for name in others
    ]
    return body + table(["on held-out patients", *CANDIDATES], rows) if rows else body


def _tuning(summary: Summary) -> str:
    party, job, split = summary["party"], summary["job"], summary["split"]
    words = {"train": "learn from", "validation": "stop and choose by", "test": "judge by"}
    known = [f"{split[part]:,} patients to {word}" for part, word in words.items() if split[part] is not None]
    sentences = [f"{', '.join(known)}."] if known else []
    if summary["held_out_by"] is not None:
        sentences.append(_HELD_OUT_BY[summary["held_out_by"]].format(party=party))
    head = ", ".join(job["tuning"]["head"])
    trunk = "stays as it is" if job["tuning"]["trunk"] == "frozen" else "is trained further"
    sentences.append(f"The head ({head}) begins afresh, the rest of the starting model {trunk}.")
    trained = {of: summary["models"][of]["epochs"] for of in CANDIDATES}
    epochs = [f"{name_of(summary, of)}: {count:,}" for of, count in trained.items() if count is not None]
    if epochs:
        sentences.append(f"Epochs that are kept, of at most {job['tuning']['epochs']:,}: {'; '.join(epochs)}.")
    sentences.append(
        f"Those two are also stopped by the loss of the patients whose {title(summary)} the gate goes by, which "
        "flatters them a little; the held-out patients judge."
    )
    sentences.append(f"Nothing left {party}. The starting model is the file with the digest")
    digest = f"<code>{escape(job['start']['digest'] or '')}</code>"
    named = f", made by {escape(job['start']['job'])}" if job["start"]["job"] else ""
    return f"<p>{escape(' '.join(sentences))} {digest}{named}.</p>"
