"""The report of a statistics job: its numbers, its tables, what its page and its artifact hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ....parties.events import Count, Phase
from ....parties.released import CategorySummary, Cells, NumberSummary, Steps
from ...journal import Journal
from ...report import Summary, cell, withheld
from .job import StatisticsJob
from .restored import restored

TOPICS = {"agree": "the job itself", "statistics": "sums, and the result"}
KEPT_BACK = "·"
FLOORED = "low to high *"  # explained below the table: neither is anybody's least or greatest value
MOST_LEVELS = 4  # of a category, in the terminal
_NEEDS = {
    "numbers": "summaries of numbers",
    "categories": "counts of categories",
    "tables": "tables",
    "curves": "survival curves",
}


def summarise(job: StatisticsJob, journal: Journal) -> Summary:
    """What a statistics job adds to the summary of a run: `statistics` is what was told, named again."""
    told = restored(job, journal)
    return {
        "coordinator": job.coordinator,
        "statistics": told,
        "units": {column.name: column.unit for column in job.columns if column.unit is not None},
        "withheld": _withheld(job, journal),
    }


def text_table(summary: Summary) -> RenderableType:
    """The result as the terminal shows it: numbers, the largest levels of categories, where curves end."""
    told = summary["statistics"]
    parts: list[RenderableType] = []
    if told["numbers"]:
        parts.append(_text_table([*number_headers()], [number_cells(summary, one) for one in told["numbers"]]))
        floor = summary["job"]["at_least"]
        parts.append(f"* at least {floor} patients lie at or below the first, and at or above the second")
    if told["categories"]:
        parts.append(_text_table(["category", "patients"], [_levels(one) for one in told["categories"]]))
    for curve in told["curves"]:
        parts.append(_text_table(curve_headers(curve), strata_cells(curve)))
    if not parts:
        parts.append(missing(summary))
    spaced = [part for one in parts for part in (one, "")]
    return Group(*spaced[:-1])


def headline(summary: Summary) -> str:
    """The run in one sentence."""
    told, parties = summary["statistics"], len(summary["statistics"]["parties"])
    if told["patients"] is None:
        return f"{parties} parties' patients; the result is {missing(summary)}" if measured(summary) else "Not measured"
    words = [
        _plural(len(told["numbers"]), "number"),
        _plural(len(told["categories"]), "category", "categories"),
        _plural(len(told["tables"]), "table"),
        _plural(len(told["curves"]), "survival curve"),
    ]
    known = ", ".join(filter(None, words))
    return f"{told['patients']:,} patients of {parties} parties" + (f": {known}" if known else "")


def markdown(summary: Summary) -> list[str]:
    """The numbers and where the curves end, as lines of markdown tables."""
    told = summary["statistics"]
    found: list[str] = []
    if told["numbers"]:
        found += _markdown_table(number_headers(), [number_cells(summary, one) for one in told["numbers"]])
    if told["categories"]:
        found += ["", *_markdown_table(["category", "patients"], [_levels(one) for one in told["categories"]])]
    for curve in told["curves"]:
        found += ["", *_markdown_table(curve_headers(curve), strata_cells(curve))]
    return found or [cell(missing(summary))]


def plot(summary: Summary) -> tuple[str, str] | None:
    """The first survival curve."""
    from . import plots  # with matplotlib, which the command line does not wait for

    for curve in summary["statistics"]["curves"]:
        for column in plots.columns_of(curve):
            return "survival.svg", plots.survival_plot(curve, column)
    return None


def closing_lines(summary: Summary) -> list[str]:
    """Rows by party, as far as the policies publish them; how many counts are kept back."""
    rows = {party: summary["parties"][party]["rows"] for party in summary["statistics"]["parties"]}
    known = [f"{party} {count:,}" for party, count in rows.items() if count is not None]
    found = [f"  rows    {'   '.join(known)}"] if known else []
    counts = list(_counts(summary["statistics"]))
    kept = sum(count is None for count in counts)
    if kept:
        found.append(f"  hidden  {kept:,} of {len(counts):,} counts, each {kept_back_text(summary)}")
    return found


def sections(summary: Summary) -> list[tuple[str, str]]:
    """The parts of the page that a statistics job has, as HTML."""
    from . import page  # with matplotlib

    return page.sections(summary)


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    from . import page

    return page.notes(summary)


# --- words of a summary -----------------------------------------------------------------------------------------------


def number_headers() -> list[str]:
    """Of the table of numbers."""
    return ["number", "known", "missing", "mean (sd)", "median", FLOORED]


def number_cells(summary: Summary, one: Mapping[str, Any]) -> list[str]:
    """A line of it."""
    unit = summary["units"].get(one["name"])
    mean = rounded_text(one["mean"], one["mean_step"])
    if one["mean"] is not None and one["standard_deviation"] is not None:
        mean += f" ({rounded_text(one['standard_deviation'], one['deviation_step'])})"
    low, high = one["low"], one["high"]
    span = KEPT_BACK if low is None or high is None else f"{number_text(low)} to {number_text(high)}"
    name = one["name"] + (f", {unit}" if unit else "")
    known, lacking = counts_of_number(summary, one)
    return [name, known, lacking, mean, median_text(one).partition(" ")[0], span]


def counts_of_number(summary: Summary, one: Mapping[str, Any]) -> tuple[str, str]:
    """How many values are known and missing; fewer missing ones than the floor are counted as known."""
    if one["with_others"] is not None and one["known"] is None:
        return f"≤ {summary['statistics']['patients']:,}", "few"
    return count_text(one["known"]), count_text(one["missing"])


def median_text(one: Mapping[str, Any]) -> str:
    """The median, with the bin that it lies in."""
    found = next((at for at in one["quantiles"] if at["probability"] == 0.5), None)
    if found is None or found["value"] is None:
        return KEPT_BACK
    low, high, value = (number_text(found[name]) for name in ("low", "high", "value"))
    return value if low == high else f"{value} ({low} to {high})"


def curve_headers(curve: Mapping[str, Any]) -> list[str]:
    """Of the table of one curve's strata."""
    return [curve["name"], "patients", "events", "median", "last step", "survival then (95 %)"]


def strata_cells(curve: Mapping[str, Any]) -> list[list[str]]:
    """Its lines."""
    return [_stratum_cells(curve, one) for one in curve["strata"]]


def _stratum_cells(curve: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    name = "all patients" if one["column"] is None else f"{one['column']}: {one['level']}"
    patients, steps = count_text(one["patients"]), one["steps"]
    if not steps:
        return [name, patients, KEPT_BACK, KEPT_BACK, KEPT_BACK, KEPT_BACK]
    last = steps[-1]
    survival = f"{last['survival']:.3f} ({last['low']:.3f} to {last['high']:.3f})"
    events = sum(step["events"] for step in steps)
    return [name, patients, f"{events:,}", _median_time(curve, steps), number_text(last["time"]), survival]


def told_exactly(curve: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of a curve's strata is told at every event, so that it is a line of stairs.

    It is where any step of the curve has one event, which no floor lets through, or where none of its own steps is
    wider than the grid of times.
    """
    if any(step["events"] == 1 for one in curve["strata"] for step in one["steps"]):
        return True
    times = [0.0, *(step["time"] for step in steps)]
    return all(round((after - before) / curve["unit"]) <= 1 for before, after in pairwise(times))


def _median_time(curve: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    """When half are left: at a step, or between two."""
    half = next((place for place, step in enumerate(steps) if step["survival"] <= 0.5), None)
    if half is None:
        return "–"
    before, time = steps[half - 1]["time"] if half else 0.0, steps[half]["time"]
    if told_exactly(curve, steps) or round((time - before) / curve["unit"]) <= 1:
        return number_text(time)
    return f"{number_text(before)} to {number_text(time)}"


def missing(summary: Summary) -> str:
    """Why nothing was told."""
    if not measured(summary):
        return "not measured"
    if any(summary["withheld"][what] for what in _NEEDS):
        return f"withheld by {summary['coordinator']}'s policy"
    return "not told: there are fewer patients than the floor"


def measured(summary: Summary) -> bool:
    """Whether everything has been added up."""
    return "measure" in summary["parties"][summary["coordinator"]]["seconds"]


def kept_back_text(summary: Summary) -> str:
    """Why some counts are not told."""
    floor = summary["statistics"]["floor"]
    return (
        f"of fewer than {floor:,} patients (more, if a party's policy asks for more), or one from which such a count "
        "could be worked out"
    )


def count_text(value: int | None) -> str:
    """A count, or that it is kept back."""
    return KEPT_BACK if value is None else f"{value:,}"


def number_text(value: float) -> str:
    """A number for people: four digits that count."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def rounded_text(value: float | None, step: float) -> str:
    """A mean or deviation: with a sign where it is told in steps."""
    return KEPT_BACK if value is None else ("≈ " if step else "") + number_text(value)


def _levels(one: Mapping[str, Any]) -> list[str]:
    """A category and its largest levels."""
    counted = sorted(zip(one["levels"], one["counts"], strict=True), key=lambda pair: -(pair[1] or 0))
    words = [f"{level}: {count_text(count)}" for level, count in counted[:MOST_LEVELS]]
    more = len(counted) - MOST_LEVELS
    return [one["name"], ", ".join(words) + (f" and {_plural(more, 'other')}" if more > 0 else "")]


def _plural(count: int, one: str, many: str | None = None) -> str:
    return "" if not count else f"{count:,} {one if count == 1 else many or one + 's'}"


def _text_table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    for header in headers:
        table.add_column(escape(header))
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def _markdown_table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    found = ["| " + " | ".join(map(cell, headers)) + " |", "| --- " * len(headers) + "|"]
    return found + ["| " + " | ".join(map(cell, line)) + " |" for line in lines]


def _counts(told: Mapping[str, Any]) -> Iterator[int | None]:
    """Every count of categories and tables."""
    for one in told["categories"]:
        yield from one["counts"]
    for table in told["tables"]:
        yield from (item["count"] for item in table["cells"])


# --- below: out of the journal ---------------------------------------------------------------------------------------


def _withheld(job: StatisticsJob, journal: Journal) -> dict[str, list[str]]:
    """Whose policy withholds what. Rows are each party's own to tell, all else is the coordinator's.

    Of too few patients there are no tables, but categories and numbers are told of without a number.
    """
    found = withheld(journal, job.names, (), {"counts": (Count,)})
    kinds = {column.kind for column in job.columns}
    asked: dict[str, tuple[bool, tuple[type, ...]]] = {
        "numbers": ("number" in kinds, (NumberSummary,)),
        "categories": ("category" in kinds, (CategorySummary,)),
        "tables": (bool(job.tables), (Cells, CategorySummary, NumberSummary)),
        "curves": (bool(job.curves), (Steps,)),
    }
    told = {what: kinds for what, (is_asked, kinds) in asked.items() if is_asked}
    judged = withheld(journal, (), (job.coordinator,), told, last=Phase.MEASURE)
    return {"counts": found["counts"], **{what: judged.get(what, []) for what in _NEEDS}}
