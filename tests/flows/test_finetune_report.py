"""The report of a finetune job: right numbers out of a hand-made journal, harm told, words escaped."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from html import escape
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from isthmus.flows.journal import Journal
from isthmus.flows.kinds.finetune import plots
from isthmus.flows.kinds.finetune.job import FinetuneJob
from isthmus.flows.kinds.finetune.report import gains, harm, verdict
from isthmus.flows.page import page
from isthmus.flows.report import closing_lines, headline, markdown, plot_of, summarise, text_table
from isthmus.flows.runs import RunRecord
from isthmus.parties.events import Chosen, Count, Finished, HeldOut, Metric, Phase, PublicEvent

RUN = "tune-0a1b2c3d-1"
HOSTILE = '<script>alert(1)</script> & "q" | `x` [red]r[/] $x_$'
Events = list[PublicEvent]
VALIDATION, TEST = {"alone": 0.78, "start": 0.72, "tuned": 0.79}, {"alone": 0.81, "start": 0.77, "tuned": 0.80}


def _job(**changes: Any) -> FinetuneJob:
    content: dict[str, Any] = {
        "name": "tune",
        "purpose": HOSTILE,
        "party": {"name": "east", "dataset": "stays"},
        "columns": ["age"],
        "label": {"column": "died"},
        "start": {"digest": "5" * 64, "job": "hospitals"},
    }
    return FinetuneJob.model_validate(content | changes)


def _metric(of: str, part: str, value: float, name: str = "auc", **more: Any) -> Metric:
    return Metric.model_validate({"name": name, "part": part, "of": of, "value": value, **more})


def _metrics(test: dict[str, float] | None = None) -> Events:
    found: Events = []
    test = test or TEST
    for of in ("start", "alone", "tuned"):
        found.append(_metric(of, "validation", VALIDATION[of]))
        found.append(_metric(of, "test", test[of], low=test[of] - 0.1, high=test[of] + 0.1, rows=164))
        found.append(_metric(of, "test", 0.1, "brier", rows=164))
        if of != "start":
            gain = test[of] - test["start"]
            found.append(_metric(of, "test", gain, "auc_gain", low=gain - 0.05, high=gain + 0.05))
            found.append(_metric(of, "validation", 12, "best_epoch"))
    return found


def _counts() -> Events:
    numbers = {"rows": 821, "train_rows": 493, "validation_rows": 164, "test_rows": 164}
    return [Count.model_validate({"name": name, "value": value}) for name, value in numbers.items()]


def _summary(events: Events, chosen: str | None = "tuned", job: FinetuneJob | None = None) -> dict[str, Any]:
    job = job or _job()
    told = [*events, HeldOut(by="start"), *([Chosen.model_validate({"of": chosen})] if chosen else [])]
    told += [Finished(phase=phase, seconds=1.0) for phase in Phase if phase in FinetuneJob.phases]
    record = RunRecord(run=RUN, job=job.canonical(), job_digest=job.digest(), attempts=1, started=datetime.now(UTC))
    return summarise(job, Journal(RUN, events=[("east", event) for event in told]), record)


def _printed(summary: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(text_table(summary))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def summary() -> dict[str, Any]:
    return _summary(_counts() + _metrics())


def test_the_summary_holds_the_numbers_of_the_journal(summary: dict[str, Any]) -> None:
    judged = {"value": 0.80, "low": 0.70, "high": 0.90, "rows": 164}
    assert summary["models"]["tuned"]["test"]["auc"] == pytest.approx(judged)
    assert summary["models"]["alone"]["validation"] == {"auc": {"value": 0.78, "low": None, "high": None, "rows": None}}
    assert [summary["models"][of]["epochs"] for of in ("alone", "start", "tuned")] == [12, None, 12]
    assert summary["split"] == {"train": 493, "validation": 164, "test": 164}
    assert (summary["chosen"], summary["held_out_by"], summary["bytes_left"]) == ("tuned", "start", {"east": 0})


def test_the_table_fits_a_terminal_and_says_all_three_models(summary: dict[str, Any]) -> None:
    lines = _printed(summary).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [" ".join(line.split()) for line in lines] == [
        "east's model validation AUC held out (95 %) over the start",
        "alone 0.780 0.810 (0.710–0.910) +0.040 (-0.010–+0.090)",
        "start as it is 0.720 0.770 (0.670–0.870)",
        "tuned 0.790 0.800 (0.700–0.900) +0.030 (-0.020–+0.080)",
    ]


def test_the_sentences_say_what_is_kept_and_by_how_much(summary: dict[str, Any]) -> None:
    assert headline(summary) == "east keeps the tuned model: 0.800 (0.700 to 0.900) AUC on held-out patients"
    told = "alone 0.780, start 0.720, tuned 0.790"
    assert verdict(summary) == f"keeps tuned, by the lowest validation loss; AUC there: {told}"
    assert gains(summary) == "alone +0.040   tuned +0.030   AUC over the start, on held-out patients"
    assert harm(summary) == (
        "the tuned model is 0.010 below the one trained alone; the gate's choice is 0.010 below the best"
    )
    assert [line.split()[0] for line in closing_lines(summary)] == ["gate", "gain", "harm"]


@pytest.mark.parametrize(
    ("test", "chosen", "said"),
    [
        ({"alone": 0.7, "start": 0.8, "tuned": 0.75}, "start", "tuning cost 0.050 against the start as it is"),
        ({"alone": 0.7, "start": 0.75, "tuned": 0.8}, "tuned", ""),
        ({"alone": 0.8, "start": 0.75, "tuned": 0.8}, "start", "the gate's choice is 0.050 below the best"),
    ],
)
def test_harm_is_told_with_its_size_and_only_where_there_is_any(test: Any, chosen: str, said: str) -> None:
    summary = _summary(_metrics(test), chosen)
    assert harm(summary) == said
    assert (escape(said) in page(summary)) and (("harm" in " ".join(closing_lines(summary))) == bool(said))


def test_the_page_says_who_held_out_what_that_nothing_left_and_escapes(summary: dict[str, Any]) -> None:
    html = page(summary)
    assert "what is held out here was held out there" in html
    assert "Nothing left east." in html
    assert "5" * 64 in html and "made by hospitals" in html
    assert "What left whom" not in html
    assert "<script>" not in html
    assert re.search(r"493 patients to learn from", html)
    assert "<script>" not in markdown(summary)
    assert "| tuned | 0.790 |" in markdown(summary)


def test_the_plot_is_svg_with_every_model(summary: dict[str, Any]) -> None:
    plot = plot_of(summary)
    assert plot is not None and plot[0] == "models.svg"
    words = "".join(ElementTree.fromstring(plot[1]).itertext())  # noqa: S314  (our own)
    assert all(word in words for word in ("alone", "start as it is", "tuned", "0.800"))
    assert "var(--together)" in plots.models_plot(summary, themed=True)


def test_what_is_withheld_is_said_and_not_drawn() -> None:
    summary = _summary([], chosen=None)
    assert headline(summary) == "What east makes of the starting model is withheld by east's policy"
    assert plot_of(summary) is None
    assert "Metrics are withheld by east" in page(summary)
    few = _summary(_counts(), chosen=None)
    assert "too few patients" in headline(few) and "few patients" in _printed(few)


def test_other_tasks_go_by_their_own_score() -> None:
    job = _job(label={"duration": "days", "event": "dead"}, tuning={"trunk": "frozen"})
    events: Events = []
    for of in ("alone", "start", "tuned"):
        events += [_metric(of, "validation", VALIDATION[of], "c_index"), _metric(of, "test", TEST[of], "c_index")]
    summary = _summary(events, job=job)
    assert headline(summary) == "east keeps the tuned model: 0.800 C-index on held-out patients"
    assert "tuned, frozen" in _printed(summary)
    assert "C-index" in page(summary)
