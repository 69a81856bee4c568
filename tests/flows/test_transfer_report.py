"""The report of a transfer job says what was kept, by how much, and also when it did harm."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

import pytest
from rich.console import Console

from isthmus.flows import report
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.transfer import check
from isthmus.flows.kinds.transfer.job import TransferJob
from isthmus.flows.page import page
from isthmus.flows.report import job_in
from isthmus.flows.runs import RunRecord
from isthmus.parties.events import Chosen, Count, Curve, Fingerprint, Finished, Metric, Phase, PublicEvent

JOB = {
    "kind": "transfer",
    "name": "few-know-many",
    "purpose": "a purpose <b>in bold</b>",
    "source": {"name": "insurer", "dataset": "members", "columns": ["age"], "label": "died"},
    "target": {"name": "lab", "dataset": "results", "label": "died"},
    "align": {"passes": [["id"]]},
}


def _auc(of: Any, value: float, part: Any = "validation", rows: int = 60) -> Metric:
    return Metric(name="auc", of=of, part=part, value=value, low=value - 0.1, high=value + 0.1, rows=rows)


def _gain(of: Any, value: float, part: Any = "validation", low: float = -0.01) -> Metric:
    return Metric(name="auc_gain", of=of, part=part, value=value, low=low, high=value + 0.05, rows=60)


def _told(chosen: Any, transferred: float) -> list[PublicEvent]:
    found: list[PublicEvent] = [
        Count(name="shared", value=70),
        Count(name="labelled", value=60),
        Count(name="own_labelled", value=30),
        _auc("target", 0.7),
        _auc("source", 0.72),
        Metric(name="log_loss", of="transferred", part="validation", value=0.512, rows=60),
        _gain("source", 0.02),
        _auc("transferred", transferred),
        _gain("transferred", round(transferred - 0.7, 3)),
        _auc("chosen", 0.77, "test"),
        _gain("chosen", 0.06, "test"),
        Curve(name="roc", part="test", x=(0, 1), y=(0, 1)),
        Chosen(of=chosen),
    ]
    if chosen != "target":
        found += [Count(name="soft_labels", value=70), _auc("distilled", 0.71), _gain("distilled", 0.01)]
    return found


def _summary(events: list[PublicEvent], **changes: Any) -> Any:
    job = TransferJob.model_validate({**JOB, **changes})
    journal = Journal("few-know-many-1")
    for party in job.members:
        journal.note(party, Count(name="rows", value=100 if party == "lab" else 240))
        journal.note(party, Fingerprint(name="ledger", value="a" * 64))
        for phase in (Phase.AGREE, Phase.EVALUATE):
            journal.note(party, Finished(phase=phase, seconds=1.0))
    for event in events:
        journal.note("lab", event)
    record = RunRecord(run="few-know-many-1", job={}, job_digest="b" * 64, started=datetime.now(UTC), attempts=1)
    return report.summarise(job, journal, record)


def _text(summary: Any) -> str:
    console = Console(width=100, record=True, file=None, highlight=False)
    with console.capture() as captured:
        console.print(report.text_table(summary))
    return captured.get()


def test_what_is_kept_is_told_with_its_gain_over_the_target_alone() -> None:
    summary = _summary(_told("transferred", 0.78))
    assert report.headline(summary) == (
        "lab keeps the transferred model: 0.770 (0.670 to 0.870) AUC, +0.060 (-0.010 to +0.110) over lab alone"
    )
    lines = _text(summary).splitlines()
    assert lines[0].split("  ")[0] == "60 shared patients"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "lab alone", "insurer alone", "transferred", "distilled, without insurer", "what the gate keeps",
    ]  # fmt: skip
    assert "0.780 (0.680–0.880)" in lines[3]
    closing = report.closing_lines(summary)
    assert closing[0] == "  rows    insurer 240   lab 100   shared patients found 70, 60 with an outcome"
    told = "AUC over lab alone: insurer alone +0.020, transferred +0.080."
    assert closing[1] == f"  gate    keeps transferred (lowest log loss); {told}"
    assert "0.512" in page(summary)
    assert closing[2] == "  distil  needs no insurer; 70 soft labels"


def test_a_transfer_that_did_harm_is_said_everywhere() -> None:
    summary = _summary(_told("target", 0.66))
    assert "lab keeps its own model (0.770 (0.670 to 0.870) AUC): what insurer told did not lower its loss." in (
        report.headline(summary)
    )
    assert "The transfer did harm, and is not used." in report.headline(summary)
    assert any("transferred -0.040. The transfer did harm" in line for line in report.closing_lines(summary))
    assert "  distil  nothing to distil: lab runs its own model alone" in report.closing_lines(summary)
    html = page(summary)
    assert "with what the source gave, the target&#x27;s model is worse than without" in html


KEPT_ALL_THE_SAME = [
    ("source", "Beside lab's own columns, what insurer gave did harm; insurer's numbers alone are kept."),
    ("split", "What insurer gave did harm by itself; the model that both tuned is kept."),
]


@pytest.mark.parametrize(("chosen", "words"), KEPT_ALL_THE_SAME)
def test_harm_beside_own_columns_is_told_apart_from_what_is_kept_of_the_source(chosen: str, words: str) -> None:
    summary = _summary(_told(chosen, 0.66))
    assert any(line.endswith(f"transferred -0.040. {words}") for line in report.closing_lines(summary))
    html = page(summary)
    assert f'<p class="note">{escape(words)}</p>' in html
    assert "not used" not in html and "worse than without" not in html


def test_ranks_that_a_better_fit_costs_are_no_harm() -> None:
    summary = _summary(_told("transferred", 0.66))
    assert any("its probabilities fit better" in line for line in report.closing_lines(summary))
    assert '<p class="note">' not in page(summary)


def test_a_gain_that_may_be_chance_is_called_so() -> None:
    assert "may be chance" in page(_summary(_told("transferred", 0.78)))
    sure = [event for event in _told("transferred", 0.78) if event != _gain("transferred", 0.08)]
    assert "may be chance" not in page(_summary([*sure, _gain("transferred", 0.08, low=0.02)]))


def test_patients_that_were_held_out_of_tuning_have_a_column_of_their_own() -> None:
    events = [e for e in _told("split", 0.78) if getattr(e, "part", "") != "test"]
    events += [_auc(of, 0.8, "test", 14) for of in ("target", "source", "transferred", "split", "chosen")]
    summary = _summary(events, split={"at_least": 50})
    assert "held out" in _text(summary).splitlines()[0]
    assert "tuned together" in _text(summary)
    assert "all are compared on the 14 shared patients" in page(summary)


def test_that_tuning_is_not_out_of_fold_is_said_where_the_job_tunes_and_with_the_label_where_there_is_one() -> None:
    carried = "those of a patient trained on carry insurer's own label"
    for split, source, said in (
        ({}, {}, (False, False)),
        ({"at_least": 50}, {}, (True, True)),
        ({"at_least": 50}, {"label": None}, (True, False)),
    ):
        how = {"give": "embedding", "pretraining": {"how": "self_supervised"}} if source else {}
        summary = _summary(_told("transferred", 0.78), split=split, source={**JOB["source"], **source}, **how)
        html = page(summary)
        assert (
            "32 numbers of each patient anew in every epoch, which are not out of fold" in html,
            carried in html,
        ) == said
        learns = " ".join(what for _, what in check.learns(job_in(summary)))
        assert ("no longer out of fold" in learns) == said[1]


def test_a_target_without_labels_is_told_that_nothing_judges_its_model() -> None:
    events: list[PublicEvent] = [
        Count(name="shared", value=70),
        Count(name="soft_labels", value=70),
        Metric(name="r2", of="distilled", part="validation", value=0.61),
    ]
    target = {"name": "lab", "dataset": "results"}
    summary = _summary(events, target=target)
    assert "out of insurer's scores of 70 shared patients" in report.headline(summary)
    assert any("0.61" in line for line in report.closing_lines(summary))
    assert "nothing here judges it" in page(summary)


def test_what_is_withheld_is_said_and_not_shown() -> None:
    summary = _summary([])
    assert "withheld by lab" in _text(summary) or "not told by lab" in _text(summary)
    assert summary["withheld"]["metrics"] == ["lab"]
    assert "Metrics are withheld by lab" in page(summary)


def test_every_word_of_a_user_is_escaped_and_the_markdown_holds_the_table() -> None:
    summary = _summary(_told("transferred", 0.78))
    assert "<b>in bold</b>" not in page(summary)
    assert "| transferred | 0.780 (0.680 to 0.880) | +0.080 (-0.010 to +0.130) |" in report.markdown(summary)


@pytest.mark.parametrize("chosen", ["target", "source", "transferred", "split"])
def test_there_is_a_headline_for_whatever_is_kept(chosen: Any) -> None:
    assert "lab keeps" in report.headline(_summary(_told(chosen, 0.78)))
