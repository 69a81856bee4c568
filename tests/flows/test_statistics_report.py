"""The report of a statistics job: what was told has its names again, words are escaped, what is kept back shows."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from isthmus.flows.journal import Journal
from isthmus.flows.kinds.statistics.job import StatisticsJob
from isthmus.flows.kinds.statistics.report import TOPICS, number_text
from isthmus.flows.kinds.statistics.told import events_of
from isthmus.flows.page import page
from isthmus.flows.report import closing_lines, headline, markdown, summarise, text_table, write_report
from isthmus.flows.runs import RunRecord
from isthmus.horizontal.counting import (
    OwnRows,
    binned_shapes,
    counted_shapes,
    parts_of,
    spread_shapes,
)
from isthmus.horizontal.findings import StatisticsResult
from isthmus.horizontal.quantiles import range_of
from isthmus.horizontal.release import Release
from isthmus.parties.events import Count, Finished, Phase, PublicEvent, Traffic
from isthmus.parties.network.message import Topic
from isthmus.parties.released import CategorySummary, Cells, NumberSummary, Steps
from isthmus.parties.table import Column

RUN = "overview-0a1b2c3d-1"
NAMES = ("north", "south", "east")
HOSTILE = '</style><script>alert(1)</script> & "q" | `x` [a](http://b) [red]r[/] $x_$'
Events = list[tuple[str, PublicEvent]]
WEEKS = [str(week) for week in range(1, 31)]


def content(floor: int = 10, **changes: Any) -> dict[str, Any]:
    return {
        "name": "overview",
        "purpose": "testing",
        "coordinator": "hub",
        "parties": [{"name": name, "dataset": "stays"} for name in NAMES],
        "columns": [
            {"name": "age", "kind": "number", "unit": "years"},
            {"name": "crea", "kind": "number"},
            {"name": "sex", "kind": "category", "levels": ["female", "male"]},
            {"name": "week", "kind": "category", "levels": WEEKS},
            {"name": "ward", "kind": "category", "levels": ["a", "b", "c"]},
        ],
        "tables": [["week", "ward"], ["sex"], ["sex", "ward", {"column": "age", "edges": [50, 70]}]],
        "curves": [{"name": "survival", "duration": "days", "event": "dead", "until": 60, "by": ["ward", "week"]}],
        "quantiles": [0.25, 0.5, 0.75],
        "at_least": floor,
    } | changes


def released(
    job: StatisticsJob, patients: int = 1_200, missing: float = 0.1, floor: int | None = None
) -> StatisticsResult:
    """What the coordinator would tell of made-up patients, all in one place."""
    drawn = np.random.default_rng(5)
    request, floor = job.request(), floor or job.at_least

    def text(levels: list[str]) -> NDArray[Any]:
        values = np.array(levels, dtype=object)[drawn.integers(0, len(levels), patients)]
        values[drawn.random(patients) < missing] = None
        return values

    names = [column.name for column in job.columns]
    crea = drawn.gamma(2.0, 0.6, patients)
    crea[drawn.random(patients) < missing] = np.nan
    values = [
        drawn.normal(60, 12, patients),
        crea,
        text(["female", "male"]),
        text([*WEEKS, "99"]),
        text(["a", "a", "b", "c"]),
    ]
    columns = [Column(name, one.kind, found) for name, one, found in zip(names, job.columns, values, strict=True)]
    times = {"survival": (np.ceil(drawn.exponential(30, patients)), (drawn.random(patients) < 0.7).astype(float))}
    rows = OwnRows(request, columns, times, patients, party="north")
    counted = parts_of(rows.counted(), counted_shapes(request))
    ranges = {spec.name: range_of(counted[f"magnitudes {spec.name}"], floor) for spec in request.numbers}
    binned = parts_of(rows.binned([*ranges.values()]), binned_shapes(request, [*ranges.values()]))
    release = Release(request, floor, ranges, counted, binned)
    spread = rows.spread([*ranges.values()], release.centres)
    return release.result(parts_of(spread, spread_shapes(request)), NAMES)


def finished(*members: str) -> Events:
    return [(name, Finished(phase=phase, seconds=1.5)) for name in members for phase in StatisticsJob.phases]


def told(result: StatisticsResult, *without: type) -> Events:
    rows: Events = [(name, Count(name="rows", value=400)) for name in NAMES]
    return rows + [("hub", event) for event in events_of(result) if not isinstance(event, without)]


def summary_of(job: StatisticsJob, events: Events) -> dict[str, Any]:
    record = RunRecord(run=RUN, job=job.canonical(), job_digest=job.digest(), attempts=1, started=datetime.now(UTC))
    return summarise(job, Journal(RUN, events=events + finished(*NAMES, "hub")), record)


def printed(summary: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(text_table(summary))
    return console.file.getvalue()  # type: ignore[attr-defined]


def well_formed(html: str) -> None:
    ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", html))  # noqa: S314  (our own text)


JOB = StatisticsJob.model_validate(content())


@pytest.fixture(scope="module")
def result() -> StatisticsResult:
    return released(JOB)


@pytest.fixture
def summary(result: StatisticsResult) -> dict[str, Any]:
    return summary_of(JOB, told(result))


@pytest.mark.parametrize(
    ("floor", "of_policies", "missing"),
    [(1, 1, 0.0), (1, 1, 0.002), (1, 1, 0.1), (10, 10, 0.0), (10, 10, 0.002), (10, 10, 0.1), (1, 10, 0.1)],
)
def test_what_was_told_comes_back_with_its_names(floor: int, of_policies: int, missing: float) -> None:
    job = StatisticsJob.model_validate(content(floor))
    found = released(job, missing=missing, floor=of_policies)
    restored = summary_of(job, told(found))["statistics"]
    assert restored == json.loads(json.dumps({**found.to_dict(), "floor": floor}))
    assert StatisticsResult.from_dict(restored).numbers == found.numbers


def test_a_table_comes_back_though_summaries_are_withheld(result: StatisticsResult) -> None:
    restored = summary_of(JOB, told(result, NumberSummary, CategorySummary))["statistics"]
    assert restored["numbers"] == [] and restored["categories"] == []
    assert restored["tables"] == json.loads(json.dumps(result.to_dict()["tables"]))


def test_the_summary_is_plain_json(summary: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary)) == summary
    assert all(names == [] for names in summary["withheld"].values())


def test_the_terminal_shows_a_compact_table(summary: dict[str, Any]) -> None:
    text = printed(summary)
    assert re.search(
        r"^age, years +≤ 1,200 +few +≈? ?[\d.]+ \(≈? ?[\d.]+\) +[\d.]+ +[\d.]+ to [\d.]+", text, re.MULTILINE
    )
    assert re.search(r"^week .* and 26 others", text, re.MULTILINE)
    assert re.search(r"^all patients +1,200 ", text, re.MULTILINE)
    assert headline(summary) == "1,200 patients of 3 parties: 2 numbers, 3 categories, 3 tables, 1 survival curve"
    assert "north 400   south 400   east 400" in closing_lines(summary)[0]
    assert re.match(r"  hidden  \d+ of \d+ counts, each of fewer than 10 patients", closing_lines(summary)[1])


def test_the_page_shows_everything_and_asks_for_nothing_else(summary: dict[str, Any], tmp_path: Path) -> None:
    report = write_report(tmp_path / "run", summary)
    names = ["report.html", "summary.json", "survival.svg"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    html = report.page.read_text()
    well_formed(html)
    for shown in ("week × ward", "sex: (other)", "below 50", "70 and above", "Kaplan-Meier", "1,200", "by ward"):
        assert shown in html, shown
    assert html.count("<svg") == 3  # two histograms, curves by ward; by week there are too few patients
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML, not requests"
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", html)


def test_a_count_that_is_kept_back_is_a_dot_with_a_legend(summary: dict[str, Any]) -> None:
    cells = summary["statistics"]["tables"][0]["cells"]
    kept = sum(cell["count"] is None for cell in cells)
    html = page(summary)
    assert 0 < kept < len(cells)
    assert html.count('<span class="held">·</span>') >= kept
    assert "· stands for a count that is kept back: of fewer than 10 patients" in html


def test_a_matrix_has_its_margins_and_the_longer_column_goes_down(summary: dict[str, Any]) -> None:
    html = page(summary)
    start = html.index("<h3>week × ward</h3>")
    matrix = html[start : html.index("</table>", start)]
    assert 'class="wide tall"' in matrix  # it scrolls
    assert "<th>week ╲ ward</th><th>a</th><th>b</th><th>c</th><th>(other)</th><th>all</th>" in matrix
    assert re.search(r'<tr class="strong"><td>all</td>.*<td class="n">1,200</td></tr>', matrix)


def test_the_words_of_a_user_are_escaped_in_page_markdown_and_table(result: StatisticsResult) -> None:
    changed = content(purpose=HOSTILE)
    changed["columns"][0] |= {"unit": "<i>years</i>"}
    changed["columns"][2] |= {"name": "[red]", "levels": [HOSTILE, "<b>male</b>"]}
    changed["columns"][4] |= {"name": HOSTILE, "levels": ["<b>a</b>", "[bold]", "$b_$"]}
    changed["tables"] = [["week", HOSTILE], ["[red]"], ["[red]", HOSTILE, {"column": "age", "edges": [50, 70]}]]
    changed["curves"][0] |= {"name": "<b>survival</b>", "by": [HOSTILE, "week"]}
    job = StatisticsJob.model_validate(changed)
    names = {"sex": "[red]", "ward": HOSTILE}
    events: Events = [
        (party, event.model_copy(update={"column": names.get(event.column, event.column)}))
        if isinstance(event, CategorySummary)
        else (party, event)
        for party, event in told(result)
    ]
    summary = summary_of(job, events)
    html, text = page(summary), markdown(summary)
    well_formed(html)
    assert len(summary["statistics"]["tables"]) == 3
    for tag in ("<script", "<b>male", "<b>a</b>", "<b>survival", "<i>years"):
        assert tag not in html and tag not in text, tag
    assert "&lt;script&gt;alert(1)" in html
    assert "[red]" in printed(summary)


def test_too_few_patients_leave_a_report_that_says_so(tmp_path: Path) -> None:
    summary = summary_of(JOB, told(released(JOB, patients=7)))
    assert summary["statistics"]["patients"] is None
    assert summary["withheld"] == {"counts": [], "numbers": [], "categories": [], "tables": [], "curves": []}
    assert "fewer patients than the floor" in headline(summary)
    well_formed(write_report(tmp_path, summary).page.read_text())
    assert "·" in printed(summary)


def test_what_the_coordinator_withholds_is_said_to_be_withheld(tmp_path: Path) -> None:
    summary = summary_of(JOB, [])
    everything = {what: ["hub"] for what in ("numbers", "categories", "tables", "curves")}
    assert summary["withheld"] == {"counts": list(NAMES), **everything}
    report = write_report(tmp_path, summary)
    assert report.plot is None
    for text in (report.page.read_text(), markdown(summary), printed(summary), headline(summary)):
        assert "withheld by hub" in text.replace("&#x27;", "'")


def test_curves_alone_can_be_withheld(result: StatisticsResult) -> None:
    summary = summary_of(JOB, told(result, Steps))
    assert summary["withheld"]["curves"] == ["hub"]
    assert "Survival curves are withheld by hub" in page(summary)


def test_without_a_floor_medians_are_times_and_many_strata_have_panels() -> None:
    job = StatisticsJob.model_validate(content(1))
    summary = summary_of(job, told(released(job)))
    line = next(line for line in printed(summary).splitlines() if "all patients" in line)
    assert re.search(r"all patients +1,200 +\d+ +\d+ +\d+ ", line)
    html = page(summary)
    well_formed(html)
    assert "by week: the first 24 of 30" in html
    assert "how it falls from one to the next" not in html


def test_cells_in_several_events_are_one_table(result: StatisticsResult) -> None:
    cut: Events = []
    for party, event in told(result):
        if isinstance(event, Cells):
            for first in range(0, len(event.counts), 7):
                part = event.counts[first : first + 7]
                cut.append((party, Cells(table=event.table, first=event.first + first, counts=part)))
        else:
            cut.append((party, event))
    assert summary_of(JOB, cut)["statistics"] == summary_of(JOB, told(result))["statistics"]


def test_the_same_summary_gives_the_same_page(summary: dict[str, Any]) -> None:
    assert page(summary) == page(summary)


def test_a_run_that_stopped_before_measuring_says_so() -> None:
    record = RunRecord(run=RUN, job=JOB.canonical(), job_digest=JOB.digest(), attempts=1, started=datetime.now(UTC))
    events: Events = [("hub", Finished(phase=Phase.AGREE, seconds=0.5))]
    assert headline(summarise(JOB, Journal(RUN, events=events), record)) == "Not measured"


def test_the_page_has_words_for_every_topic() -> None:
    sent: Events = [
        ("north", Traffic.model_validate({"peer": "hub", "topic": topic, "sent": 1_000_000, "received": 0}))
        for topic in map(Topic, TOPICS)
    ]
    assert page(summary_of(JOB, sent)).count("1,000,000") == len(TOPICS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (62.3912, "62.39"), (-3.5, "-3.5"), (131.34, "131.3"), (12345.6, "12,346"), (0.00001234, "1.23e-05"),
     (0.4567, "0.457"), (2e9, "2e+09"), (100.0, "100")],
)  # fmt: skip
def test_numbers_are_written_with_the_digits_that_count(value: float, text: str) -> None:
    assert number_text(value) == text
