"""The parts of the report's page that a statistics job has. Every word of a user's is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ...markup import HELD_BACK, bar, figure, table
from ...report import Summary
from . import plots
from .report import (
    FLOORED,
    KEPT_BACK,
    count_text,
    counts_of_number,
    curve_headers,
    kept_back_text,
    measured,
    median_text,
    missing,
    number_text,
    rounded_text,
    strata_cells,
    told_exactly,
)

Cells = dict[tuple[str | None, ...], int | None]
ALL = "all"
_WORDS = {
    "counts": "Counts",
    "numbers": "Summaries of numbers",
    "categories": "Counts of categories",
    "tables": "Tables",
    "curves": "Survival curves",
}


def sections(summary: Summary) -> list[tuple[str, str]]:
    """Titles and bodies."""
    told = summary["statistics"]
    if not any(told[part] for part in ("numbers", "categories", "tables", "curves")):
        return [("Result", f"<p>The result is {escape(missing(summary))}.</p>" if measured(summary) else "")]
    return [
        ("Numbers", _numbers(summary)),
        ("Categories", "".join(_category(summary, one) for one in told["categories"])),
        ("Tables", "".join(_table(summary, one) for one in told["tables"])),
        ("Survival", "".join(_curve(one) for one in told["curves"])),
    ]


def notes(summary: Summary) -> list[str]:
    """What a reader has to know first."""
    found = [f"{_WORDS[what]} are withheld by {name}'s policy." for what, names in summary["withheld"].items()
             for name in names]  # fmt: skip
    if not summary["job"]["secure_aggregation"]:
        found.append(
            f"Without secure aggregation: {summary['coordinator']} saw every party's own counts. Every policy here "
            "allows it."
        )
    if measured(summary):
        found.append(f"{KEPT_BACK} stands for a count that is kept back: {kept_back_text(summary)}.")
    return found


def _numbers(summary: Summary) -> str:
    numbers = summary["statistics"]["numbers"]
    if not numbers:
        return ""
    cells = []
    for one in numbers:
        unit = summary["units"].get(one["name"])
        known, lacking = counts_of_number(summary, one)
        span = KEPT_BACK
        if one["low"] is not None and one["high"] is not None:
            span = f"{number_text(one['low'])} to {number_text(one['high'])}"
        words = [
            known, lacking, rounded_text(one["mean"], one["mean_step"]),
            rounded_text(one["standard_deviation"], one["deviation_step"]), median_text(one), span,
        ]  # fmt: skip
        name = escape(one["name"]) + (f' <span class="held">{escape(unit)}</span>' if unit else "")
        cells.append([name, *map(_marked, words), plots.small_histogram(one)])
    header = ["", "known", "missing", "mean", "sd", "median, its bin", FLOORED, ""]
    note = (
        "Low and high are values at or beyond which as many patients lie as may be told of. The median lies in the bin "
        "beside it."
    )
    if any(one["mean_step"] or one["deviation_step"] for one in numbers):
        note += " ≈ is rounded, since more digits would give a small count away."
    if any(one["with_others"] is not None for one in numbers):
        note += " Few missing values are counted in a column's histogram, in the bin nearest its mean."
    return table(header, cells) + f"<p>{note}</p>" + _quantiles(summary)


def _quantiles(summary: Summary) -> str:
    numbers = [one for one in summary["statistics"]["numbers"] if one["quantiles"]]
    if not numbers:
        return ""
    header = ["quantile", *(f"{at['probability']:g}" for at in numbers[0]["quantiles"])]
    cells = []
    for one in numbers:
        values = (HELD_BACK if at["value"] is None else number_text(at["value"]) for at in one["quantiles"])
        cells.append([escape(one["name"]), *values])
    return table(header, cells)


def _category(summary: Summary, one: Mapping[str, Any]) -> str:
    lines = [*zip(one["levels"], one["counts"], strict=True)]
    if one["with_others"] is None:
        apart = [("(other)", one["other"]), ("(missing)", one["missing"])]
        both = all(count is not None for _, count in apart)
        lines += [pair for pair in apart if pair[1]] if both else [("(other or missing)", one["rest"])]
    counts = [count or 0 for _, count in lines]
    most, patients = max(counts, default=0), summary["statistics"]["patients"]
    cells = []
    for level, count in lines:
        share = f"{count / patients:.1%}" if count is not None and patients else ""
        cells.append([escape(level), _marked(count_text(count)), share, bar(count, most) if count else ""])
    words = ""
    if one["with_others"] is not None:
        words = f"<p>The patients of no such level, if any, are few and counted with {escape(one['with_others'])}.</p>"
    return f"<h3>{escape(one['name'])}</h3>" + table(["level", "patients", "", ""], cells) + words


def _table(summary: Summary, one: Mapping[str, Any]) -> str:
    title = f"<h3>{escape(one['name'])}</h3>"
    cells = {tuple(cell["groups"]): cell["count"] for cell in one["cells"]}
    names = [
        list(dict.fromkeys(key[axis] for key in cells if key[axis] is not None)) for axis in range(len(one["columns"]))
    ]
    match names:
        case [rows]:
            most = max((cells[(row,)] or 0 for row in rows), default=0)
            lines = [
                [escape(row), _marked(count_text(cells[(row,)])), bar(cells[(row,)], most) if cells[(row,)] else ""]
                for row in rows
            ]
            lines.append([ALL, _marked(count_text(cells[(None,)])), ""])
            return title + table([escape(one["columns"][0]), "patients", ""], lines, _last(lines))
        case [_, _]:
            return title + _matrix(one["columns"], names, cells)
        case [layers, *_]:
            body = title
            for layer in [*layers, None]:
                inner = {key[1:]: count for key, count in cells.items() if key[0] == layer}
                label = ALL if layer is None else layer
                body += f"<p><b>{escape(one['columns'][0])}: {escape(label)}</b></p>"
                body += _matrix(one["columns"][1:], names[1:], inner)
            return body
    return ""


def _matrix(columns: list[str], names: list[list[str]], cells: Cells) -> str:
    """Two columns against one another with their margins; the one with more groups goes down."""
    if len(names[1]) > len(names[0]):
        columns, names = columns[::-1], names[::-1]
        cells = {key[::-1]: count for key, count in cells.items()}
    rows, across = [*names[0], None], [*names[1], None]
    header = [f"{escape(columns[0])} ╲ {escape(columns[1])}", *(escape(name or ALL) for name in across)]
    lines = [
        [escape(row or ALL), *(_marked(count_text(cells[(row, column)])) for column in across)] for row in rows
    ]  # fmt: skip
    return table(header, lines, _last(lines))


def _curve(curve: Mapping[str, Any]) -> str:
    body = f"<h3>{escape(curve['name'])}</h3>"
    for column in plots.columns_of(curve):
        words = "Kaplan-Meier, 95 % interval" + (f", by {column}" if column is not None else "")
        strata = sum(bool(one["steps"]) for one in curve["strata"] if one["column"] == column)
        if strata > plots.MOST_PANELS:
            words += f": the first {plots.MOST_PANELS} of {strata}"
        body += figure(plots.survival_plot(curve, column, themed=True), words, wide=True)
    cells = [[_marked(escape(text)) for text in line] for line in strata_cells(curve)]
    note = ""
    if any(one["steps"] and not told_exactly(curve, one["steps"]) for one in curve["strata"]):
        note = (
            "A curve is told at its dots, which have enough events between them; how it falls from one to the next is "
            "not told. So the median is known to lie between two of them."
        )
    return (
        body
        + table([escape(header) for header in ["", *curve_headers(curve)[1:]]], cells)
        + (f"<p>{note}</p>" if note else "")
    )


def _marked(text: str) -> str:
    return HELD_BACK if text == KEPT_BACK else text


def _last(lines: list[list[str]]) -> list[bool]:
    return [place == len(lines) - 1 for place in range(len(lines))]
