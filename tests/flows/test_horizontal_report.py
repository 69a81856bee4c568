"""The report of a horizontal job: right numbers out of a hand-made journal, escaped words, what is withheld said so."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from isthmus.flows.journal import Journal
from isthmus.flows.kinds.horizontal import plots
from isthmus.flows.kinds.horizontal.job import HorizontalJob
from isthmus.flows.kinds.horizontal.report import TOPICS
from isthmus.flows.page import page
from isthmus.flows.report import closing_lines, headline, markdown, summarise, text_table, write_report
from isthmus.flows.runs import RunRecord
from isthmus.flows.screen import Screen
from isthmus.parties.events import (
    Count,
    Curve,
    Difference,
    Drift,
    Failed,
    Finished,
    Metric,
    Phase,
    Progress,
    PublicEvent,
    Resumed,
    Round,
    Traffic,
)
from isthmus.parties.network.message import Topic

RUN = "hospitals-0a1b2c3d-1"
NAMES = ("north", "south", "east", "west")
MEMBERS = (*NAMES, "hub")
HOSTILE = '</style><script>alert(1)</script> & "q" | `x` [a](http://b) [red]r[/] $x_$'
Events = list[tuple[str, PublicEvent]]


def job_with(**changes: Any) -> HorizontalJob:
    content: dict[str, Any] = {
        "name": "hospitals",
        "purpose": "testing",
        "coordinator": "hub",
        "parties": [{"name": name, "dataset": "stays"} for name in NAMES],
        "columns": ["age", "crea", {"name": "sex", "kind": "category", "levels": ["female", "male"]}],
        "label": {"column": "died"},
        "rounds": {"count": 4, "quorum": 3},
        "subgroups": ["sex"],
    }
    return HorizontalJob.model_validate(content | changes)


def counts() -> Events:
    events: Events = []
    for place, name in enumerate(NAMES):
        for count, value in (("rows", 1_000), ("train_rows", 600), ("validation_rows", 200), ("test_rows", 200)):
            events.append((name, Count.model_validate({"name": count, "value": value + 10 * place})))
    return events


def metric(of: str, value: float, name: str = "auc", **more: Any) -> Metric:
    return Metric.model_validate({"name": name, "part": "test", "value": value, "of": of, **more})


def metrics() -> Events:
    events: Events = []
    for name, alone, together in zip(NAMES, (0.70, 0.72, 0.80, 0.66), (0.75, 0.76, 0.79, 0.74), strict=True):
        events.append((name, metric("alone", alone, low=alone - 0.05, high=alone + 0.05, rows=200)))
        events.append((name, metric("own", together, low=together - 0.04, high=together + 0.04, rows=200)))
    pooled = [
        metric("pooled", 0.7751, low=0.7423, high=0.8094, rows=860),
        metric("pooled", 0.152, "brier", rows=860),
        metric("pooled", 0.781, low=0.73, high=0.83, rows=500, subgroup=0, level=0),
        metric("pooled", 0.2, "prevalence", rows=500, subgroup=0, level=0),
    ]
    return events + [("hub", event) for event in pooled]


def rounds(gone_after: int = 4) -> Events:
    events: Events = []
    for number in range(5):
        there = NAMES if number <= gone_after else NAMES[:3]
        fields: dict[str, Any] = {"round": number, "validation_loss": 0.7 - 0.05 * number, "validation_score": 0.5}
        if number:
            fields |= {"loss": 0.69 - 0.05 * number, "parties": there}
        events.append(("hub", Round(**fields)))
    return [*events, ("hub", Metric(name="best_round", part="validation", value=4))]


def drifts() -> Events:
    events: Events = []
    for place, name in enumerate(NAMES):
        events.append((name, Drift(column="age", smd=0.4 * place - 0.6, missing=None)))
        events.append((name, Drift(column="crea", smd=None, missing=0.25 if name == "east" else None)))
        events.append((name, Drift(column="sex", smd=None, missing=None)))
    return events


def curves() -> Events:
    grid = tuple(place / 100 for place in range(101))
    found = [
        Curve(name="roc", part="test", x=grid, y=tuple(x**0.5 for x in grid)),
        Curve(name="calibration", part="test", x=(0.1, 0.5), y=(0.08, 0.6)),
    ]
    return [("hub", event) for event in found]


def finished(*phases: Phase, members: tuple[str, ...] = MEMBERS) -> Events:
    phases = phases or HorizontalJob.phases
    return [(name, Finished(phase=phase, seconds=1.5)) for name in members for phase in phases]


def everything() -> Events:
    return counts() + rounds() + metrics() + drifts() + curves() + finished()


def summary_of(events: Events, job: HorizontalJob | None = None) -> dict[str, Any]:
    job = job or job_with()
    record = RunRecord(run=RUN, job=job.canonical(), job_digest=job.digest(), attempts=1, started=datetime.now(UTC))
    return summarise(job, Journal(RUN, events=events), record)


def printed(summary: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(text_table(summary))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def summary() -> dict[str, Any]:
    return summary_of(everything())


def test_the_summary_holds_the_numbers_of_the_journal(summary: dict[str, Any]) -> None:
    assert summary["metrics"]["auc"] == {"value": 0.7751, "low": 0.7423, "high": 0.8094}
    assert summary["rows"] == 860
    assert summary["models"]["west"]["split"] == {"train": 630, "validation": 230, "test": 230}
    assert summary["models"]["west"]["alone"]["auc"]["value"] == 0.66
    assert summary["models"]["west"]["federated"]["auc"]["value"] == 0.74
    assert [at["round"] for at in summary["history"]] == [0, 1, 2, 3, 4]
    assert summary["history"][0]["loss"] is None and summary["history"][0]["parties"] == []
    assert summary["best_round"] == 4
    assert summary["drift"]["east"][1] == {"column": "crea", "smd": None, "missing": 0.25}
    assert summary["dropped"] == []
    assert summary["withheld"] == {"counts": [], "metrics": [], "curves": []}
    assert json.loads(json.dumps(summary)) == summary


def test_the_terminal_shows_a_line_a_party_and_one_for_all(summary: dict[str, Any]) -> None:
    lines = [line.rstrip() for line in printed(summary).splitlines()]
    assert re.fullmatch(r" +rows +held out +alone +federated, AUC \(95 %\)", lines[0])
    assert re.fullmatch(r"west +1,030 +230 +0\.660 \(0\.610–0\.710\) +0\.740 \(0\.700–0\.780\)", lines[4])
    assert re.fullmatch(r"all together +4,060 +860 +0\.775 \(0\.742–0\.809\)", lines[5])
    assert "better than alone at 3 of 4" in headline(summary)
    assert any("east -0.010" in line and "west +0.080" in line for line in closing_lines(summary))


def test_the_page_is_well_formed_and_shows_what_counts(summary: dict[str, Any]) -> None:
    html = page(summary)
    ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", html))  # noqa: S314  (our own text)
    for shown in (
        "0.775 (0.742 to 0.809)", "0.660 (0.610 to 0.710)", "Brier score", "0.781 (0.730 to 0.830)", "25%",
        "2,460 patients to learn from", "4 of at most 4 rounds of fedavg", "round 4 is kept", "under masks",
    ):  # fmt: skip
        assert shown in html, shown
    assert html.count("<svg") == 5  # parties, ROC, calibration, rounds, drift


def test_the_page_asks_for_nothing_else(summary: dict[str, Any], tmp_path: Path) -> None:
    report = write_report(tmp_path / "run", summary)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["parties.svg", "report.html", "summary.json"]
    html = report.page.read_text()
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML, not requests"
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", html)


def test_the_same_summary_gives_the_same_page(summary: dict[str, Any]) -> None:
    assert page(summary) == page(summary)


def test_the_artifact_holds_the_table_and_the_plot(summary: dict[str, Any]) -> None:
    text = markdown(summary)
    assert "| west | 1,030 | 230 | 0.660 (0.610 to 0.710) | 0.740 (0.700 to 0.780) |" in text
    assert "data:image/svg+xml;base64," in text and len(text) < 150_000


def test_the_words_of_a_user_are_escaped_in_page_markdown_and_table() -> None:
    content = job_with().canonical()
    content["columns"][0]["name"] = HOSTILE
    content["columns"][2] |= {"name": "[red]", "levels": [HOSTILE, "<b>male</b>"]}
    job = HorizontalJob.model_validate(content | {"subgroups": ["[red]"], "purpose": HOSTILE})
    hostile: Events = [(name, Drift(column=HOSTILE, smd=0.7)) for name in NAMES]
    summary = summary_of(counts() + rounds() + metrics() + hostile + curves() + finished(), job)
    html, text = page(summary), markdown(summary)
    ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", html))  # noqa: S314  (our own text)
    assert "<script" not in html and "<script" not in text
    assert "<b>male" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "north" in printed(summary)


def test_a_withheld_subgroup_is_shown_as_withheld(summary: dict[str, Any]) -> None:
    told, male, others = summary["subgroups"]
    assert (told["level"], told["rows"]) == ("female", 500)
    assert (male["level"], male["rows"], male["metrics"]) == ("male", None, {})
    assert (others["level"], others["metrics"]) == (None, {})
    html = page(summary)
    assert html.count('<span class="held">withheld</span>') == 2
    assert "(other or missing)" in html


def test_what_the_coordinator_withholds_is_said_to_be_withheld() -> None:
    of_parties = [(name, event) for name, event in metrics() if name != "hub"]
    summary = summary_of(counts() + of_parties + drifts() + finished())
    assert summary["withheld"]["metrics"] == ["hub"]
    for text in (page(summary), markdown(summary).replace("\\", ""), printed(summary), headline(summary)):
        assert "withheld by hub" in text.replace("&#x27;", "'")


def test_what_a_party_withholds_is_told_from_what_it_has_too_few_patients_for() -> None:
    of_others = [(name, event) for name, event in metrics() + drifts() if name not in ("north", "south")]
    few: Events = [("south", Drift(column="age", smd=0.1))]
    summary = summary_of(counts() + rounds() + of_others + few + curves() + finished())
    lines = printed(summary).splitlines()
    assert "withheld by north's policy" in lines[1]
    assert "too few patients" in lines[2]
    assert summary["withheld"] == {"counts": [], "metrics": ["north"], "curves": []}


def test_a_run_of_which_nothing_is_published_still_has_a_report(tmp_path: Path) -> None:
    summary = summary_of(finished())
    report = write_report(tmp_path, summary)
    assert report.plot is None
    assert "Counts are withheld by north" in report.page.read_text()
    assert summary["withheld"]["curves"] == []  # there may be none


def test_withheld_curves_are_said_to_be_withheld() -> None:
    summary = summary_of(counts() + rounds() + metrics() + drifts() + finished())
    assert summary["withheld"]["curves"] == ["hub"]
    assert "Curves are withheld by hub" in page(summary)


def test_a_party_that_dropped_out_is_named_with_its_last_round() -> None:
    gone: Events = [("west", Failed(phase=Phase.TRAIN, code="disk.full"))]
    summary = summary_of(counts() + rounds(gone_after=2) + metrics() + drifts() + gone + finished())
    assert summary["dropped"] == [{"party": "west", "after_round": 2, "error": "disk.full"}]
    html = page(summary)
    assert "west dropped out after round 2 (disk.full)" in html
    assert "2 of 4" in html  # the rounds that it is in
    assert any("west dropped out" in line for line in closing_lines(summary))


def test_parties_that_were_not_drawn_have_not_dropped_out() -> None:
    job = job_with(rounds={"count": 4, "sample": 3, "quorum": 3}, secure_aggregation=False)
    assert summary_of(rounds(gone_after=2) + finished(), job)["dropped"] == []


def test_rounds_told_again_by_an_attempt_that_goes_on_count_once() -> None:
    again: Events = [("hub", Resumed(phase=Phase.TRAIN, round=4))]
    summary = summary_of(rounds() + again + rounds() + finished())
    assert len(summary["history"]) == 5
    assert summary["resumed"]


@pytest.mark.parametrize(
    ("label", "name", "title"),
    [
        ({"column": "days", "task": "regression"}, "r2", "R²"),
        ({"duration": "days", "event": "dead"}, "c_index", "C-index"),
    ],
)
def test_every_task_has_its_main_metric(label: dict[str, str], name: str, title: str) -> None:
    told: Events = [(one, metric(of, 0.625, name)) for one in NAMES for of in ("alone", "own")]
    told.append(("hub", metric("pooled", 0.625, name, rows=100)))
    summary = summary_of(told + rounds() + finished(), job_with(label=label, subgroups=[]))
    assert f"0.625 {title}" in headline(summary)
    assert f"federated, {title}" in printed(summary)
    assert "<svg" in page(summary)
    assert summary["withheld"]["curves"] == []


def test_without_training_alone_there_is_no_such_column() -> None:
    summary = summary_of(everything(), job_with(alone=False))
    assert "alone" not in printed(summary)


def test_a_wide_job_shows_the_columns_that_drift_most() -> None:
    columns = [f"c{place:03}" for place in range(60)]
    told: Events = [("north", Drift(column=name, smd=place / 100)) for place, name in enumerate(columns)]
    assert plots.drift_columns(summary_of(told, job_with(columns=columns, subgroups=[]))) == columns[20:]


def test_the_page_has_words_for_every_topic() -> None:
    sent: Events = [
        ("north", Traffic.model_validate({"peer": "hub", "topic": topic, "sent": 1_000_000, "received": 0}))
        for topic in map(Topic, TOPICS)
    ]
    assert page(summary_of(sent)).count("1,000,000") == len(TOPICS)


def test_the_screen_says_rounds_scores_differences_and_who_went() -> None:
    console = Console(file=io.StringIO(), width=160)
    screen = Screen(console, job_with())
    with screen.showing():
        screen("south", Difference(column="age", what="unit"))
        for name, event in finished(Phase.AGREE):
            screen(name, event)
        screen("hub", Round(round=2, validation_score=0.75))
        screen("north", Progress(phase=Phase.TRAIN, index=2, units=4, done=3, total=9))
        screen("west", Failed(phase=Phase.TRAIN, code="disk.full"))
        for name, event in finished(Phase.TRAIN, members=("north", "south", "east", "hub")):
            screen(name, event)
        for name, event in finished(Phase.EVALUATE, members=("north", "hub")):
            screen(name, event)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "south: column 'age' has another unit" in lines[0]
    assert lines[1].split() == ["1", "agree", *(word for name in MEMBERS for word in (name, "✓"))]
    assert "validation AUC 0.750" in lines[2] and "round 2/4" in lines[2] and "west ✗ disk.full" in lines[2]
    assert lines[3].split() == ["4", "evaluate", "north", "✓", "hub", "✓"]
