"""The report of a transfer job: its numbers, its table, what its page and its artifact hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ....parties.events import Chosen, Count, Curve, Metric
from ...journal import Journal
from ...report import Summary, count_of, fingerprints, withheld
from .. import compared_report
from ..aligned_report import linkage
from ..compared_report import gain_text, score_text, scores_of
from .job import TransferJob

TOPICS = {  # in the order of a job
    "agree": "the job itself",
    "align": "enciphered linkage keys",
    "setup": "shapes and settings of split tuning",
    "train": "what the source gives of shared patients, and the answer; of split tuning cut layers and gradients too",
    "evaluate": "cut layers of held-out patients",
}
CANDIDATES = ("target", "source", "transferred", "split")
HEADERS = ("AUC (95 %)", "over {target} alone")
_TITLES = {
    "target": "{target} alone",
    "source": "{source} alone",
    "transferred": "transferred",
    "split": "tuned together",
    "chosen": "what the gate keeps",
    "distilled": "distilled, without {source}",
}
_HARM = {  # by what is kept
    "target": "The transfer did harm, and is not used.",
    "source": "Beside {target}'s own columns, what {source} gave did harm; {source}'s numbers alone are kept.",
    "transferred": "It ranks patients no better than the target alone, but its probabilities fit better.",
    "split": "What {source} gave did harm by itself; the model that both tuned is kept.",
}


def summarise(job: TransferJob, journal: Journal) -> Summary:
    """What a transfer job adds to the summary of a run."""
    target = job.target.name
    return {
        "source": job.source.name,
        "target": target,
        "shared": count_of(journal, "shared"),
        "labelled": count_of(journal, "labelled", target),
        "own_labelled": count_of(journal, "own_labelled", target),
        "soft_labels": count_of(journal, "soft_labels", target),
        "linkage": linkage(job, journal),
        "chosen": next((event.of for _, event in journal.of(Chosen)), None),
        "validation": {of: scores_of(journal, of, "validation") for of in (*CANDIDATES, "distilled")},
        "test": {of: scores_of(journal, of, "test") for of in (*CANDIDATES, "chosen")},
        "curves": {e.name: {"x": list(e.x), "y": list(e.y)} for _, e in journal.of(Curve) if e.part == "test"},
        "digests": {"alignment": fingerprints(journal, "alignment").get(target)},
        "withheld": withheld(journal, job.members, (target,), {"counts": (Count,), "metrics": (Metric, Chosen)}),
    }


def text_table(summary: Summary) -> Table:
    """The result as the terminal shows it."""
    return compared_report.text_table(headers(summary), lines(summary))


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    chosen, target, source = summary["chosen"], summary["target"], summary["source"]
    if unlabelled(summary):
        soft = summary["soft_labels"]
        told = f" of {soft:,} shared patients" if soft is not None else ""
        return f"{target} has a model out of {source}'s scores{told}; without labels of its own nobody can judge it"
    if chosen is None:
        why = missing_metrics(summary)
        return f"What {target} can learn from {source} is {why}" if evaluated(summary) else "Not evaluated yet"
    kept, gain = summary["test"]["chosen"], summary["test"]["chosen"].get("auc_gain")
    reached = score_text(kept.get("auc"))
    if chosen == "target":
        own = f"{target} keeps its own model ({reached} AUC): what {source} told did not lower its loss."
        return f"{own} {harm(summary)}".strip()
    which = {"source": f"{source}'s alone", "transferred": "the transferred", "split": "the one tuned together"}[chosen]
    more = f", {gain_text(gain)} over {target} alone" if gain else ""
    return f"{target} keeps {which} model: {reached} AUC{more}"


def markdown(summary: Summary) -> list[str]:
    """The table, as lines of markdown."""
    return compared_report.markdown_table(headers(summary), lines(summary))


def plot(summary: Summary) -> tuple[str, str] | None:
    """The models that the gate compared, with their intervals."""
    from . import plots  # with matplotlib, which the command line does not wait for

    return ("gate.svg", plots.gate_plot(summary)) if summary["chosen"] is not None else None


def closing_lines(summary: Summary) -> list[str]:
    """Rows, what the gate found, and what the distilled model is worth."""
    target, source, found = summary["target"], summary["source"], []
    rows = {party: facts["rows"] for party, facts in summary["parties"].items()}
    known = [f"{party} {count:,}" for party, count in rows.items() if count is not None]
    if known and summary["shared"] is not None:
        labelled = f", {summary['labelled']:,} with an outcome" if summary["labelled"] is not None else ""
        found.append(f"  rows    {'   '.join(known)}   shared patients found {summary['shared']:,}{labelled}")
    if summary["chosen"] is not None:
        found.append(f"  gate    {verdict(summary)}")
    distilled = summary["validation"]["distilled"]
    if "r2" in distilled:
        found.append(f"  distil  tells {distilled['r2']['value']:.2f} of the variance of {source}'s scores (R²)")
    elif summary["chosen"] == "target" and summary["job"]["distill"]:
        found.append(f"  distil  nothing to distil: {target} runs its own model alone")
    elif "auc" in distilled and summary["soft_labels"] is not None:
        gain = distilled.get("auc_gain")
        worse = f"; no better than {target} alone" if gain and gain["value"] <= 0 else ""
        found.append(f"  distil  needs no {source}; {summary['soft_labels']:,} soft labels{worse}")
    return found


def sections(summary: Summary) -> list[tuple[str, str]]:
    """The parts of the page that a transfer job has, as HTML."""
    from . import page  # with matplotlib

    return page.sections(summary)


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    from . import page

    return page.notes(summary)


# --- words of a summary -----------------------------------------------------------------------------------------------


def headers(summary: Summary) -> list[str]:
    """Of the table; the third column is there where split tuning held patients out."""
    labelled = summary["labelled"]
    found = [f"{labelled:,} shared patients" if labelled is not None else "shared patients"]
    found += [header.format(**summary) for header in HEADERS]
    return [*found, "held out"] if _tuned(summary) else found


def lines(summary: Summary) -> list[tuple[list[str], bool]]:
    """Of the table: cells, and whether they are of the model that is kept."""
    found = []
    for of in (*CANDIDATES, "distilled"):
        scores = summary["validation"][of]
        held_out = summary["test"].get(of, {}).get("auc")
        if not scores.get("auc") and not held_out:
            continue
        cells = [title(summary, of), score_text(scores.get("auc")), gain_text(scores.get("auc_gain"))]
        if _tuned(summary):
            cells.append(score_text(held_out))
        found.append((cells, of == summary["chosen"]))
    kept = summary["test"]["chosen"]
    if kept and not _tuned(summary):
        cells = [title(summary, "chosen"), score_text(kept.get("auc")), gain_text(kept.get("auc_gain"))]
        found.append((cells, False))
    if not found:
        found.append(([f"{summary['target']}'s models", missing_metrics(summary), ""], False))
    return found


def title(summary: Mapping[str, Any], of: str) -> str:
    """A model, in words."""
    return _TITLES[of].format(source=summary["source"], target=summary["target"])


def verdict(summary: Summary) -> str:
    """What the gate kept and why, also when the transfer did harm."""
    chosen = title(summary, summary["chosen"])
    gains = {of: summary["validation"][of].get("auc_gain") for of in CANDIDATES}
    told = ", ".join(f"{title(summary, of)} {gain['value']:+.3f}" for of, gain in gains.items() if gain)
    against = f"; AUC over {summary['target']} alone: {told}" if told else ""
    return f"keeps {chosen} (lowest log loss){against}. {harm(summary)}".strip()


def harm(summary: Summary) -> str:
    """One sentence where what the source gave made the target's model rank patients worse; else nothing."""
    gain = summary["validation"]["transferred"].get("auc_gain")
    if not gain or gain["value"] >= 0:
        return ""
    words = _HARM.get(summary["chosen"], "")  # the gate goes by the log loss, and may keep a model of the source still
    return words.format(source=summary["source"], target=summary["target"])


def unlabelled(summary: Summary) -> bool:
    """Whether the target brought no label."""
    return summary["job"]["target"]["label"] is None


def evaluated(summary: Summary) -> bool:
    """Whether the target has judged what it learnt."""
    return "evaluate" in summary["parties"][summary["target"]]["seconds"]


def missing_metrics(summary: Summary) -> str:
    """Why there is no AUC."""
    if unlabelled(summary):
        return "not to be judged without labels"
    if summary["target"] in summary["withheld"]["metrics"] and summary["target"] in summary["withheld"]["counts"]:
        return f"withheld by {summary['target']}'s policy"
    return (
        f"not told by {summary['target']}: its policy, or too few patients" if evaluated(summary) else "not evaluated"
    )


def _tuned(summary: Mapping[str, Any]) -> bool:
    return bool(summary["test"]["split"])
