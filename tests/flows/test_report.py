"""The report: right numbers out of a hand-made journal, escaped words, and no crash where a policy withholds."""

import io
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from isthmus.flows.demo import demo_job
from isthmus.flows.journal import Journal
from isthmus.flows.kinds import KINDS, room
from isthmus.flows.kinds.vertical.baselines import Baselines, Gain, Line, Linkage, Row, Score
from isthmus.flows.kinds.vertical.job import VerticalJob
from isthmus.flows.page import page
from isthmus.flows.report import markdown, summarise, text_table, write_report
from isthmus.flows.runs import RunRecord
from isthmus.parties.events import Count, Curve, Fingerprint, Finished, Metric, Phase, PublicEvent, Resumed, Traffic
from isthmus.parties.network.message import Topic

RUN = "hospital-mortality-0a1b2c3d-1"
GRID = tuple(i / 100 for i in range(101))
SECONDS = {Phase.AGREE: 0.5, Phase.ALIGN: 3.25, Phase.TRAIN: 9.5, Phase.EVALUATE: 0.25, Phase.CLOSE: 0.125}


def counts() -> list[tuple[str, PublicEvent]]:
    events: list[tuple[str, PublicEvent]] = []
    for party, columns in (("insurer", 11), ("lab", 15)):
        events += [(party, Count(name="rows", value=4250)), (party, Count(name="columns", value=columns))]
        for number, matched in enumerate((3_200, 150, 60, 30, 22), 1):
            for name, value in (("keys_null", 10), ("keys_repeated", 20), ("keys_used", 4000), ("matched", matched)):
                events.append((party, Count(name=name, value=value, linkage_pass=number)))
        events.append((party, Count(name="shared", value=3_462)))
        for name, value in (("train_rows", 2_078), ("validation_rows", 692), ("test_rows", 692)):
            events.append((party, Count(name=name, value=value)))
    return events


def metrics() -> list[tuple[str, PublicEvent]]:
    events: list[PublicEvent] = []
    for epoch, (loss, auc) in enumerate(((0.61, 0.70), (0.52, 0.78), (0.48, 0.795), (0.47, 0.79)), 1):
        events.append(Metric(name="log_loss", part="train", value=loss, epoch=epoch))
        events.append(Metric(name="auc", part="validation", value=auc, epoch=epoch))
    events += [
        Metric(name="best_epoch", part="validation", value=3),
        Metric(name="auc", part="test", value=0.7971, low=0.7523, high=0.8349),
        Metric(name="brier", part="test", value=0.1561),
    ]
    return [("insurer", event) for event in events]


def curves() -> list[tuple[str, PublicEvent]]:
    roc = Curve(name="roc", part="test", x=GRID, y=tuple(math.sqrt(x) for x in GRID))
    calibration = Curve(name="calibration", part="test", x=(0.1, 0.3, 0.7), y=(0.08, 0.33, 0.64))
    return [("insurer", roc), ("insurer", calibration)]


def traffic(peer: str, topic: Topic, sent: int) -> Traffic:
    fields = {"peer": peer, "topic": topic, "sent": sent, "received": sent - 100_000}
    return Traffic.model_validate(fields, context={"aliases": ["lab", "insurer"]})


def always(phases: tuple[Phase, ...] = VerticalJob.phases) -> list[tuple[str, PublicEvent]]:
    events: list[tuple[str, PublicEvent]] = []
    for party, peer, letter in (("insurer", "lab", "a"), ("lab", "insurer", "b")):
        events += [(party, Finished(phase=phase, seconds=SECONDS[phase])) for phase in phases]
        events += [
            (party, traffic(peer, Topic.ALIGN, 500_000)),
            (party, traffic(peer, Topic.TRAIN, 1_300_000)),
            (party, Fingerprint(name="alignment", value="c" * 64)),
            (party, Fingerprint(name="ledger", value=letter * 64)),
            (party, Fingerprint(name="model", value=("d" if party == "lab" else "e") * 64)),
        ]
    return events


def baselines(**changes: Any) -> Baselines:
    def row(kind: Any, party: str | None, *aucs: float) -> Row:
        network, logistic, boosting = (Score(auc=auc, low=auc - 0.04, high=auc + 0.04) for auc in aucs)
        roc = Line(x=GRID, y=GRID) if kind == "alone" else None
        return Row(
            kind=kind, party=party, train_rows=2_078, columns=15,
            network=network, logistic=logistic, boosting=boosting, roc=roc,
        )  # fmt: skip

    known: dict[str, Any] = {
        "test_rows": 692,
        "rows": (
            row("alone", "lab", 0.7641, 0.738, 0.770),
            row("alone", "insurer", 0.7432, 0.746, 0.742),
            row("all_rows", "insurer", 0.7501, 0.749, 0.748),
            row("pooled", None, 0.7984, 0.792, 0.808),
        ),
        "gain": Gain(over="lab", value=0.033, low=0.011, high=0.055),
        "linkage": Linkage(precision=1.0, recall=0.9891, shared=3_500, found=3_462),
        "seconds": 9.0,
    }
    return Baselines(**known | changes)


def journal_of(*events: list[tuple[str, PublicEvent]]) -> Journal:
    return Journal(RUN, events=[event for some in events for event in some])


def summary_of(journal: Journal, job: VerticalJob | None = None, **options: Any) -> dict[str, Any]:
    job = job or demo_job()
    record = RunRecord(run=RUN, job=job.canonical(), job_digest=job.digest(), attempts=1, started=datetime.now(UTC))
    return summarise(job, journal, record, **options)


@pytest.fixture
def summary() -> dict[str, Any]:
    return summary_of(journal_of(counts(), metrics(), curves(), always()), baselines=baselines())


def printed(summary: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(text_table(summary))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_summary_holds_the_numbers_of_the_journal(summary: dict[str, Any]) -> None:
    assert summary["shared"] == 3_462
    assert summary["split"] == {"train": 2_078, "validation": 692, "test": 692}
    assert summary["metrics"]["auc"] == {"value": 0.7971, "low": 0.7523, "high": 0.8349}
    assert summary["history"][2] == {"epoch": 3, "loss": 0.48, "validation_auc": 0.795}
    assert (len(summary["history"]), summary["best_epoch"]) == (4, 3)
    assert summary["bytes_left"] == {"insurer": 1_800_000, "lab": 1_800_000}
    assert summary["parties"]["lab"]["seconds"]["train"] == 9.5
    assert summary["digests"]["alignment"] == "c" * 64
    assert summary["digests"]["ledgers"] == {"insurer": "a" * 64, "lab": "b" * 64}
    assert summary["withheld"] == {"counts": [], "metrics": [], "curves": []}
    assert not summary["resumed"]


def test_the_summary_tells_the_linkage_pass_by_pass(summary: dict[str, Any]) -> None:
    assert [at["matched"] for at in summary["linkage"]] == [3_200, 150, 60, 30, 22]
    assert [at["pass"] for at in summary["linkage"]] == [1, 2, 3, 4, 5]
    assert summary["linkage"][1]["identifiers"] == ["names", "birth_date"]
    assert summary["linkage"][4]["parties"]["lab"] == {"null": 10, "repeated": 20, "used": 4_000}


def test_a_resumed_run_says_so() -> None:
    resumed: list[tuple[str, PublicEvent]] = [("lab", Resumed(phase=Phase.TRAIN, epoch=2))]
    summary = summary_of(journal_of(metrics(), always(), resumed))
    assert summary["resumed"]
    assert summary["parties"]["lab"]["resumed"] == [{"phase": "train", "epoch": 2, "round": None, "model": None}]


def test_the_summary_survives_json(summary: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary)) == summary


def test_baselines_survive_json() -> None:
    assert Baselines.from_json(baselines().model_dump_json()) == baselines()


def test_the_report_is_three_files_and_the_page_asks_for_nothing_else(summary: dict[str, Any], tmp_path: Path) -> None:
    report = write_report(tmp_path / "run", summary)
    assert json.loads(report.summary.read_text()) == summary
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["report.html", "roc.svg", "summary.json"]
    html = report.page.read_text()
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "names of XML, not requests"
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", html)


def test_the_page_is_well_formed_and_shows_what_counts(summary: dict[str, Any]) -> None:
    html = page(summary)
    ElementTree.fromstring(re.sub(r"<!doctype html>|<meta[^>]*>", "", html))  # noqa: S314  (our own text)
    for shown in (
        "0.797 (0.752 to 0.835)", "lab alone 0.764", "+0.033 (+0.011 to +0.055)", "recall 0.9891", "3,462",
        "national_id", "3,200", "1,300,000", "9.5 s", "c" * 64, "a" * 64, "no benchmark", "insurer on all its rows",
    ):  # fmt: skip
        assert shown in html, shown
    assert html.count("<svg") == 4


def test_the_words_of_a_user_are_escaped_in_page_markdown_and_table() -> None:
    hostile = '</style><script>alert(1)</script> & "q" | `x` [a](http://b) [red]r[/]'
    job = VerticalJob.model_validate({**demo_job().canonical(), "purpose": hostile})
    summary = summary_of(journal_of(counts(), metrics(), curves(), always()), job, baselines=baselines())
    html, text = page(summary), markdown(summary)
    assert "<script" not in html and "<script" not in text
    assert "&lt;script&gt;alert(1)" in html
    assert "\\[a\\](http" in text and "\\|" in text
    assert "together" in printed(summary)


def test_the_terminal_shows_the_table_of_the_comparison(summary: dict[str, Any]) -> None:
    lines = [line.rstrip() for line in printed(summary).splitlines()]
    assert re.fullmatch(r"held-out patients 692 +AUC \(95 % interval\) +logistic +boosting", lines[0])
    assert re.fullmatch(r"lab alone +0\.764 \(0\.724 to 0\.804\) +0\.738 +0\.770", lines[1])
    assert re.fullmatch(r"together, no row shared +0\.797 \(0\.752 to 0\.835\)", lines[4])
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "lab alone", "insurer alone", "insurer on all its rows", "together, no row shared",
        "pooled, forbidden in real life",
    ]  # fmt: skip


def test_without_baselines_there_is_one_row_and_no_simulation_note() -> None:
    summary = summary_of(journal_of(counts(), metrics(), curves(), always()))
    assert len(printed(summary).splitlines()) == 2
    html = page(summary)
    assert "simulation" not in html
    assert "0.797 (0.752 to 0.835)" in html


def test_the_artifact_holds_table_curve_and_next_step(summary: dict[str, Any]) -> None:
    text = markdown(summary)
    assert "| together, no row shared | 0.797 (0.752 to 0.835) |  |  |" in text
    assert "data:image/svg+xml;base64," in text and len(text) < 100_000
    assert f"isthmus runs {RUN}" in text
    assert "| lab | 1,800,000 | `bbbbbbbbbbbbbbbb` |" in text


def test_withheld_metrics_are_said_to_be_withheld_and_by_whom() -> None:
    summary = summary_of(journal_of(counts(), always()))
    assert summary["withheld"]["metrics"] == ["insurer"]
    for text in (page(summary), markdown(summary).replace("\\", ""), printed(summary)):
        assert "withheld by insurer" in text.replace("&#x27;", "'")


def test_a_run_of_which_nothing_is_published_still_has_a_report(tmp_path: Path) -> None:
    summary = summary_of(journal_of(always()))
    assert summary["shared"] is None
    assert summary["withheld"]["counts"] == ["insurer", "lab"]
    html = write_report(tmp_path, summary).page.read_text()
    assert "Counts are withheld by lab" in html
    assert "withheld" in markdown(summary)


def test_baselines_that_a_policy_withholds_leave_the_table_without_them() -> None:
    held_back = baselines(rows=(), gain=None, linkage=None, test_rows=None, withheld_by=("insurer",))
    summary = summary_of(journal_of(counts(), always()), baselines=held_back)
    assert "comparison is withheld by the policy of insurer" in page(summary)
    assert "lab alone" not in printed(summary)


def test_a_run_that_only_aligned_reports_the_shared_patients() -> None:
    phases = (Phase.AGREE, Phase.ALIGN, Phase.CLOSE)
    summary = summary_of(journal_of(counts(), always(phases)))
    assert summary["withheld"]["metrics"] == []
    assert "3,462 shared patients" in page(summary)
    assert "withheld" not in page(summary)


def test_a_run_of_one_epoch_and_one_sided_curves_can_be_drawn() -> None:
    one: list[tuple[str, PublicEvent]] = [
        ("insurer", Metric(name="auc", part="validation", value=0.5, epoch=1)),
        ("insurer", Curve(name="calibration", part="test", x=(0.2,), y=(0.0,))),
    ]
    assert "<svg" in page(summary_of(journal_of(one, always())))


def test_the_page_has_words_for_every_topic() -> None:
    topics = [Topic(topic) for topic in room("vertical", "report").TOPICS]
    events: list[tuple[str, PublicEvent]] = [("lab", traffic("insurer", topic, 1_000_000)) for topic in topics]
    assert page(summary_of(journal_of(always(), events))).count("1,000,000") == len(topics)
    assert set(Topic) == {topic for kind in KINDS for topic in room(kind, "report").TOPICS}


def test_the_same_summary_gives_the_same_page(summary: dict[str, Any]) -> None:
    assert page(summary) == page(summary)
