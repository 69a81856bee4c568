"""The report of a horizontal job: its numbers, its table, what its page and its artifact hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from ....parties.events import Count, Curve, Drift, Failed, Metric, Round
from ...journal import Journal
from ...report import Summary, count_of, withheld
from ..compared_report import markdown_table, score_text
from .job import HorizontalJob

TOPICS = {  # in the order of a job
    "agree": "the job itself",
    "statistics": "sums for means and scales",
    "setup": "settings and digests",
    "train": "models and updates",
    "evaluate": "sums of held-out patients",
}
MAIN = {"binary": ("auc", "AUC"), "regression": ("r2", "R²"), "survival": ("c_index", "C-index")}
OTHERS = "(other or missing)"
_PARTS = {"train": "train_rows", "validation": "validation_rows", "test": "test_rows"}


def summarise(job: HorizontalJob, journal: Journal) -> Summary:
    """What a horizontal job adds to the summary of a run."""
    history = _history(journal)
    pooled = [event for _, event in journal.of(Metric) if event.of == "pooled"]
    overall = [event for event in pooled if event.subgroup is None]
    return {
        "coordinator": job.coordinator,
        "task": job.task,
        "main": MAIN[job.task][0],
        "models": {name: _of_party(journal, name) for name in job.names},
        "metrics": _metrics(overall),
        "rows": next((event.rows for event in overall), None),
        "history": history,
        "best_round": next((int(e.value) for _, e in journal.of(Metric) if e.name == "best_round"), None),
        "dropped": _dropped(job, journal, history),
        "subgroups": _subgroups(job, pooled),
        "drift": {name: _drift(journal, name) for name in job.names},
        "curves": {e.name: {"x": list(e.x), "y": list(e.y)} for _, e in journal.of(Curve) if e.part == "test"},
        "withheld": _withheld(job, journal, overall),
    }


def text_table(summary: Summary) -> Table:
    """The result as the terminal shows it: a line a party, and one for all of them."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    for header in headers(summary):
        table.add_column(header, justify="right" if header in ("rows", "held out") else "left")
    for cells, together in lines(summary):
        narrow = (escape(cell).replace(" to ", "–") for cell in cells)  # so that a line fits 80 columns
        table.add_row(*narrow, style="bold" if together else None)
    return table


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    title, parties = MAIN[summary["task"]][1], len(summary["models"])
    pooled = main_of(summary, summary["metrics"])
    if pooled is None:
        reached = f"A model of {parties} parties"
        return f"{reached}; its {title} is {missing_pooled(summary)}" if evaluated(summary) else reached
    on = f" on {summary['rows']:,} held-out patients" if summary["rows"] is not None else " on held-out patients"
    sentence = f"Together {score_text(pooled)} {title}{on} of {parties} parties"
    pairs = compared(summary)
    if not pairs:
        return sentence
    better = sum(together > alone for alone, together in pairs.values())
    return f"{sentence}; better than alone at {better} of {len(pairs)}"


def markdown(summary: Summary) -> list[str]:
    """The table, as lines of markdown."""
    return markdown_table(headers(summary), lines(summary))


def plot(summary: Summary) -> tuple[str, str] | None:
    """Every party alone and together; without those, the ROC curve."""
    from ... import plots as common  # with matplotlib, which the command line does not wait for
    from . import plots

    if any(main_of(summary, one["federated"]) for one in summary["models"].values()):
        return "parties.svg", plots.parties_plot(summary)
    return ("roc.svg", common.roc_plot(summary)) if "roc" in summary["curves"] else None


def closing_lines(summary: Summary) -> list[str]:
    """Which round was kept, what each party gains, who dropped out."""
    found = []
    if summary["best_round"] is not None:
        best, last = summary["best_round"], last_round(summary)
        more = "; the validation loss was still falling: more rounds may help" if best == last else ""
        found.append(f"  kept    the model of round {best} of {last}{more}")
    if pairs := compared(summary):
        gains = "   ".join(f"{name} {together - alone:+.3f}" for name, (alone, together) in pairs.items())
        found.append(f"  gain    {gains}   {MAIN[summary['task']][1]} over alone, on each party's held-out patients")
    return found + [f"  gone    {dropped_text(one)}" for one in summary["dropped"]]


def sections(summary: Summary) -> list[tuple[str, str]]:
    """The parts of the page that a horizontal job has, as HTML."""
    from . import page  # with matplotlib

    return page.sections(summary)


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    from . import page

    return page.notes(summary)


# --- words of a summary -----------------------------------------------------------------------------------------------


def headers(summary: Summary) -> list[str]:
    """Of the table."""
    title = f"{MAIN[summary['task']][1]} (95 %)" if summary["task"] == "binary" else MAIN[summary["task"]][1]
    alone = ["alone"] if summary["job"]["alone"] else []
    return ["", "rows", "held out", *alone, f"federated, {title}"]


def lines(summary: Summary) -> list[tuple[list[str], bool]]:
    """Of the table: cells, and whether they are of all parties together."""
    with_alone = summary["job"]["alone"]
    found = []
    for name, one in summary["models"].items():
        alone = [score_text(main_of(summary, one["alone"])) or missing_own(summary, name)] if with_alone else []
        together = score_text(main_of(summary, one["federated"])) or missing_own(summary, name)
        counts = [_count(summary["parties"][name]["rows"]), _count(one["split"]["test"])]
        found.append(([name, *counts, *alone, together], False))
    rows = [facts["rows"] for facts in (summary["parties"][name] for name in summary["models"])]
    in_all = None if None in rows else sum(rows)
    pooled = score_text(main_of(summary, summary["metrics"])) or missing_pooled(summary)
    counts = [_count(in_all), _count(summary["rows"])]
    return [*found, (["all together", *counts, *([""] if with_alone else []), pooled], True)]


def main_of(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The metric that the task goes by."""
    found: Mapping[str, Any] | None = metrics.get(summary["main"])
    return found


def compared(summary: Summary) -> dict[str, tuple[float, float]]:
    """By party: what it reaches alone, and what the common model reaches, on its own held-out patients."""
    both = {
        name: (main_of(summary, one["alone"]), main_of(summary, one["federated"]))
        for name, one in summary["models"].items()
    }
    return {name: (alone["value"], one["value"]) for name, (alone, one) in both.items() if alone and one}


def missing_own(summary: Summary, name: str) -> str:
    """Why there is no such number of a party."""
    if name in summary["withheld"]["metrics"]:
        return f"withheld by {name}'s policy"
    return "too few patients" if "evaluate" in summary["parties"][name]["seconds"] else "not evaluated"


def missing_pooled(summary: Summary) -> str:
    """Why there is no such number of all parties."""
    if summary["coordinator"] in summary["withheld"]["metrics"]:
        return f"withheld by {summary['coordinator']}'s policy"
    return "not told: too few patients" if evaluated(summary) else "not evaluated"


def evaluated(summary: Summary) -> bool:
    """Whether the model has been judged."""
    return "evaluate" in summary["parties"][summary["coordinator"]]["seconds"]


def last_round(summary: Summary) -> int:
    """How many rounds there were."""
    return max((at["round"] for at in summary["history"]), default=0)


def dropped_text(one: Mapping[str, Any]) -> str:
    """Who dropped out, when, and why if that is known."""
    when = f"after round {one['after_round']}" if one["after_round"] else "before the first round"
    return f"{one['party']} dropped out {when}" + (f" ({one['error']})" if one["error"] else "")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


# --- below: out of the journal ---------------------------------------------------------------------------------------


def _metrics(events: Iterable[Metric]) -> dict[str, dict[str, float | None]]:
    return {one.name: {"value": one.value, "low": one.low, "high": one.high} for one in events}


def _of_party(journal: Journal, name: str) -> dict[str, Any]:
    told = [event for party, event in journal.of(Metric) if party == name and event.part == "test"]
    return {
        "split": {part: count_of(journal, count, name) for part, count in _PARTS.items()},
        "federated": _metrics(event for event in told if event.of == "own"),
        "alone": _metrics(event for event in told if event.of == "alone"),
    }


def _history(journal: Journal) -> list[dict[str, Any]]:
    """Round by round; an attempt that goes on tells the earlier ones again."""
    rounds = {
        event.round: {
            "round": event.round,
            "loss": event.loss,
            "validation_loss": event.validation_loss,
            "validation_score": event.validation_score,
            "parties": list(event.parties),
        }
        for _, event in journal.of(Round)
    }
    return [rounds[number] for number in sorted(rounds)]


def _dropped(job: HorizontalJob, journal: Journal, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parties that the job went on without: missing from the last rounds (of a sample, that says nothing)."""
    failed = {party: event.code for party, event in journal.of(Failed)}
    trained = [at for at in history if at["parties"]]
    found = []
    for name in job.names:
        last = max((at["round"] for at in trained if name in at["parties"]), default=0)
        missing = bool(trained) and last < trained[-1]["round"] and job.rounds.sample is None
        if missing or (name in failed and trained):
            found.append({"party": name, "after_round": last, "error": failed.get(name)})
    return found


def _subgroups(job: HorizontalJob, pooled: list[Metric]) -> list[dict[str, Any]]:
    """Every level of every subgroup column, and the patients of none (`level` None); without metrics where withheld."""
    levels = {column.name: column.levels for column in job.columns}
    found = []
    for place, column in enumerate(job.subgroups):
        for number, level in enumerate((*levels[column], None)):
            told = [event for event in pooled if (event.subgroup, event.level) == (place, number)]
            rows = next((event.rows for event in told), None)
            found.append({"column": column, "level": level, "rows": rows, "metrics": _metrics(told)})
    return found


def _drift(journal: Journal, name: str) -> list[dict[str, Any]]:
    told = {event.column: event for party, event in journal.of(Drift) if party == name}
    return [{"column": one.column, "smd": one.smd, "missing": one.missing} for one in told.values()]


def _withheld(job: HorizontalJob, journal: Journal, overall: list[Metric]) -> dict[str, list[str]]:
    """Whose policy withholds what. Drift and rounds go by what lets metrics go, and are told of few patients too."""
    parties = withheld(journal, job.names, job.members, {"counts": (Count,), "metrics": (Metric, Drift, Round)})
    judges = (job.coordinator,) if any(event.name == "auc" for event in overall) else ()
    return parties | withheld(journal, job.names, judges, {"curves": (Curve,)})
