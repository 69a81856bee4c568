"""The report of a finetune job: its numbers, its table, what its page and its artifact hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from ....parties.events import Chosen, Count, HeldOut, Metric
from ...journal import Journal
from ...report import Summary, cell, count_of, withheld
from .. import compared_report
from ..compared_report import gain_text, score_text, scores_of
from ..horizontal.report import MAIN
from .job import FinetuneJob

TOPICS: dict[str, str] = {}  # nothing is sent
CANDIDATES = ("alone", "start", "tuned")
_PARTS = {"train": "train_rows", "validation": "validation_rows", "test": "test_rows"}
_TITLES = {"alone": "alone", "start": "start as it is", "tuned": "tuned{how}"}
_HOW = {"frozen": ", frozen", "tuned": ""}


def summarise(job: FinetuneJob, journal: Journal) -> Summary:
    """What a finetune job adds to the summary of a run."""
    party = job.party.name
    return {
        "party": party,
        "task": job.task,
        "main": MAIN[job.task][0],
        "models": {
            of: {
                "validation": scores_of(journal, of, "validation"),
                "test": scores_of(journal, of, "test"),
                "epochs": _epochs(journal, of),
            }
            for of in CANDIDATES
        },
        "chosen": next((event.of for _, event in journal.of(Chosen)), None),
        "split": {part: count_of(journal, count, party) for part, count in _PARTS.items()},
        "held_out_by": next((event.by for _, event in journal.of(HeldOut)), None),
        "withheld": withheld(journal, (party,), (party,), {"counts": (Count,), "metrics": (Metric,)}),
    }


def text_table(summary: Summary) -> Table:
    """The result as the terminal shows it: a line a model, the one that is kept in bold."""
    return compared_report.text_table(headers(summary), lines(summary))


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    party, chosen = summary["party"], summary["chosen"]
    if chosen is None:
        what = f"What {party} makes of the starting model is"
        return f"{what} {missing(summary)}" if evaluated(summary) else "Not evaluated yet"
    which = {
        "alone": "what it learns alone, not the starting model",
        "start": "the starting model as it is",
        "tuned": "the tuned model",
    }[chosen]
    score = main_of(summary, chosen, "test")
    if score is None:
        return f"{party} keeps {which}; its {title(summary)} on held-out patients is {missing(summary)}"
    return f"{party} keeps {which}: {score_text(score)} {title(summary)} on held-out patients"


def markdown(summary: Summary) -> list[str]:
    """The table, as lines of markdown, and what the gate says."""
    found = compared_report.markdown_table(headers(summary), lines(summary))
    return [*found, "", cell(f"The gate {verdict(summary)}.")] if summary["chosen"] is not None else found


def plot(summary: Summary) -> tuple[str, str] | None:
    """The three models on held-out patients, with their intervals."""
    from . import plots  # with matplotlib, which the command line does not wait for

    return ("models.svg", plots.models_plot(summary)) if _judged(summary) else None


def closing_lines(summary: Summary) -> list[str]:
    """What the gate did, and by how much the models differ on held-out patients."""
    found = [f"  gate    {verdict(summary)}"] if summary["chosen"] is not None else []
    return found + [f"  {word:<7} {text}" for word, text in (("gain", gains(summary)), ("harm", harm(summary))) if text]


def sections(summary: Summary) -> list[tuple[str, str]]:
    """The parts of the page that a finetune job has, as HTML."""
    from . import page  # with matplotlib

    return page.sections(summary)


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    from . import page

    return page.notes(summary)


# --- words of a summary -----------------------------------------------------------------------------------------------


def title(summary: Mapping[str, Any]) -> str:
    """The metric that the gate goes by."""
    return MAIN[summary["task"]][1]


def headers(summary: Summary) -> list[str]:
    """Of the table."""
    interval = " (95 %)" if summary["task"] == "binary" else ""
    over = ["over the start"] if summary["task"] == "binary" else []
    return [f"{summary['party']}'s model", f"validation {title(summary)}", f"held out{interval}", *over]


def lines(summary: Summary) -> list[tuple[list[str], bool]]:
    """Of the table: cells, and whether they are of the model that is kept."""
    found = []
    for of in CANDIDATES:
        validated, judged = main_of(summary, of, "validation"), main_of(summary, of, "test")
        cells = [name_of(summary, of), _value(validated) or "–", score_text(judged) or missing(summary)]
        if summary["task"] == "binary":
            cells.append(gain_text(summary["models"][of]["test"].get("auc_gain")))
        found.append((cells, of == summary["chosen"]))
    return found


def name_of(summary: Mapping[str, Any], of: str) -> str:
    """A model, in words."""
    return _TITLES[of].format(how=_HOW[summary["job"]["tuning"]["trunk"]])


def main_of(summary: Mapping[str, Any], of: str, part: str) -> Mapping[str, Any] | None:
    """The metric that the task goes by, of one model."""
    found: Mapping[str, Any] | None = summary["models"][of][part].get(summary["main"])
    return found


def verdict(summary: Summary) -> str:
    """What the gate keeps, and how the models score on the rows that it went by."""
    scores = {of: main_of(summary, of, "validation") for of in CANDIDATES}
    told = ", ".join(f"{of} {score['value']:.3f}" for of, score in scores.items() if score)
    return f"keeps {summary['chosen']}, by the lowest validation loss; {title(summary)} there: {told or 'undefined'}"


def gains(summary: Summary) -> str:
    """By how much the other models are better or worse than the start, on held-out patients."""
    start = main_of(summary, "start", "test")
    others = {of: main_of(summary, of, "test") for of in CANDIDATES if of != "start"}
    told = [f"{of} {score['value'] - start['value']:+.3f}" for of, score in others.items() if score and start]
    return f"{'   '.join(told)}   {title(summary)} over the start, on held-out patients" if told else ""


def harm(summary: Summary) -> str:
    """Where tuning, the start or the gate's choice was worse than what there was without it, and by how much."""
    values = {of: score["value"] for of in CANDIDATES if (score := main_of(summary, of, "test")) is not None}
    if len(values) < len(CANDIDATES):
        return ""
    found = []
    if values["tuned"] < values["start"]:
        found.append(f"tuning cost {values['start'] - values['tuned']:.3f} against the start as it is")
    if values["tuned"] < values["alone"]:
        found.append(f"the tuned model is {values['alone'] - values['tuned']:.3f} below the one trained alone")
    chosen = summary["chosen"]
    if chosen is not None and (best := max(values.values())) > values[chosen]:
        found.append(f"the gate's choice is {best - values[chosen]:.3f} below the best")
    return "; ".join(found)


def evaluated(summary: Summary) -> bool:
    """Whether the models have been judged."""
    return "evaluate" in summary["parties"][summary["party"]]["seconds"]


def missing(summary: Summary) -> str:
    """Why there is no such number."""
    if summary["party"] in summary["withheld"]["metrics"] and summary["party"] in summary["withheld"]["counts"]:
        return f"withheld by {summary['party']}'s policy"
    return "not told: its policy, or too few patients" if evaluated(summary) else "not evaluated"


def _judged(summary: Summary) -> bool:
    return any(main_of(summary, of, "test") for of in CANDIDATES)


def _value(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['value']:.3f}"


# --- below: out of the journal ---------------------------------------------------------------------------------------


def _epochs(journal: Journal, of: str) -> int | None:
    """After how many epochs the model is kept; None for one that was not trained."""
    found = [event.value for _, event in journal.of(Metric) if event.of == of and event.name == "best_epoch"]
    return int(found[-1]) if found else None
