"""Finetune jobs as a whole: from the model of a horizontal training, and from one that somebody else has made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.flows import publisher
from isthmus.flows.check import check_job
from isthmus.flows.journal import Journal
from isthmus.flows.kinds.finetune.own_data import split_of
from isthmus.flows.report import summarise
from isthmus.flows.runs import RunRecord
from isthmus.horizontal.codes import CategoryCode, NumberCode
from isthmus.horizontal.model_file import SavedModel, Seen, arrays_of
from isthmus.horizontal.model_spec import ModelSpec
from isthmus.horizontal.models import build
from isthmus.horizontal.splits import SplitRule, split_by_hash
from isthmus.horizontal.tabular import TabularEncoder
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Chosen, Count, Difference, Fingerprint, Finished, HeldOut, Metric, Phase, Progress
from isthmus.parties.home import PartyHome
from isthmus.parties.ledger import Ledger
from isthmus.parties.store import Store
from isthmus.transfer.finetune import CANDIDATES, Candidate

RUN, PART = "tune-1", "part.safetensors"
SPEC = ModelSpec("network", (8,), 0.2)
ENCODER = TabularEncoder(
    [NumberCode("age", 60.0, 10.0, False), NumberCode("crea", 1.0, 0.3, True)],
    [CategoryCode("sex", ("female", "male"))],
)
Change = Callable[[dict[str, Any]], Any]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tune(star: Any, digest: str | None, **changes: Any) -> None:
    """Let the star's job be that of tuning a model at `east`, and let its policy allow that."""
    star.job = {
        "kind": "finetune",
        "name": "tune",
        "purpose": "testing",
        "party": {"name": "east", "dataset": "stays"},
        "columns": ["age", "crea", "sex"],
        "label": {"column": "died"},
        "model": {"kind": "network", "hidden": [8], "dropout": 0.2},
        "start": {"digest": digest} if digest else {"job": "star-job"},
        "tuning": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "seed": 4},
        **changes,
    }
    star.edit_party("east", lambda content: content["policy"].update(kinds=["finetune"], max_epochs=10, peers=[]))


def _saved(**changes: Any) -> SavedModel:
    """A model of hospitals that `east` had no part in."""
    saved = SavedModel(
        party="north",
        seen=dict.fromkeys(("north", "south"), Seen(("dead",), SplitRule(0.3, 0.3, 99))),
        round=3,
        task="binary",
        spec=SPEC,
        encoder=ENCODER,
        arrays=arrays_of(build(SPEC, ENCODER, 2, "binary", party="north")),
    )
    return replace(saved, **changes)


def _put(star: Any, **changes: Any) -> str:
    path = star.homes / "east" / "models" / "received" / "trunk.safetensors"
    _saved(**changes).save(path, party="east")
    return _digest(path)


@pytest.fixture
def tuning(star: Any) -> Any:
    """The star, about to tune a received model at `east`."""
    _tune(star, _put(star))
    return star


def _summary(star: Any, journal: Journal) -> dict[str, Any]:
    job = star.load_job()
    record = RunRecord(run=RUN, job=job.canonical(), job_digest=job.digest(), attempts=1, started=datetime.now(UTC))
    return summarise(job, journal, record)


def test_a_hospital_goes_on_from_the_trunk_of_a_horizontal_training_without_a_word_to_anybody(star: Any) -> None:
    star.job["rounds"]["count"], star.job["alone"] = 1, False
    trained = star.run_inside()
    file = star.homes / "east" / "models" / "star-job-1" / PART
    assert dict((party, e.value) for party, e in trained.of(Fingerprint) if e.name == "model")["east"] == _digest(file)
    before, start = Ledger(PartyHome(star.homes / "east")).verify(), SavedModel.parse(file.read_bytes())
    assert start.seen == dict.fromkeys(star.parties, Seen(("died",), SplitRule(0.2, 0.2, 3)))
    _tune(star, _digest(file), split={"validation_share": 0.4, "test_share": 0.4})
    journal = star.run_inside(RUN)
    assert [party for party, event in journal.of(Finished) if event.phase is Phase.CLOSE] == ["east"]
    assert Ledger(PartyHome(star.homes / "east")).verify() == before  # nothing has left
    # What the training of the trunk held out is held out again, whatever the job's own split says.
    assert [event.by for _, event in journal.of(HeldOut)] == ["start"]
    home = PartyHome(star.homes / "east")
    store = Store(home, "stays")
    ids = store.row_ids()
    parts = split_by_hash(ids, store.label("died", ids).astype(np.int64), 0.2, 0.2, 3)
    counts = {event.name: event.value for _, event in journal.of(Count)}
    assert counts["test_rows"] == len(parts.test) == {m.rows for _, m in journal.of(Metric) if m.part == "test"}.pop()
    # The start is judged as the horizontal training has judged it: the same rows, the same weights.
    own = next(e for party, e in trained.of(Metric) if party == "east" and e.of == "own" and e.name == "auc")
    again = next(e for _, e in journal.of(Metric) if e.of == "start" and e.part == "test" and e.name == "auc")
    assert (own.value, own.low, own.high) == (again.value, again.low, again.high)


def test_the_model_that_the_gate_keeps_is_saved_and_can_be_gone_on_from(tuning: Any) -> None:
    journal = tuning.run_inside(RUN)
    (chosen,) = [event.of for _, event in journal.of(Chosen)]
    scores = {e.of: e.value for _, e in journal.of(Metric) if e.name == "auc" and e.part == "validation"}
    assert scores[chosen] == max(scores.values()) and set(scores) == {"alone", "start", "tuned"}
    path = tuning.homes / "east" / "models" / RUN / PART
    assert [e.value for _, e in journal.of(Fingerprint) if e.name == "model"] == [_digest(path)]
    kept = SavedModel.parse(path.read_bytes())
    seen = {"east": Seen(("died",), SplitRule(0.2, 0.2, 4))}
    assert (kept.party, kept.seen) == ("east", seen if chosen == "alone" else {**_saved().seen, **seen})
    assert [event.by for _, event in journal.of(HeldOut)] == ["job"]
    _tune(tuning, _digest(path))
    assert [event.by for _, event in tuning.run_inside("again-1").of(HeldOut)] == ["start"]


@pytest.mark.parametrize("chosen", CANDIDATES)
def test_what_the_start_has_seen_is_not_forgotten_of_what_has_come_of_it(
    tuning: Any, monkeypatch: pytest.MonkeyPatch, chosen: Candidate
) -> None:
    """Somebody who trained the start goes on from what another has made of it, with the rows held out as at first."""
    monkeypatch.setattr("isthmus.transfer.finetune.choose", lambda validation: chosen)
    north = Seen(("died",), SplitRule(0.25, 0.15, 8))
    _tune(tuning, _put(tuning, seen={"north": north, "south": Seen(("dead",), SplitRule(0.3, 0.3, 99))}))
    tuning.run_inside(RUN)
    content = (tuning.homes / "east" / "models" / RUN / PART).read_bytes()
    kept = SavedModel.parse(content)
    assert kept.seen["east"] == Seen(("died",), SplitRule(0.2, 0.2, 4))
    assert kept.seen.get("north") == (None if chosen == "alone" else north)
    job = tuning.load_job()
    moved = job.model_copy(update={"party": job.party.model_copy(update={"name": "north"})})
    asked = SplitRule(0.2, 0.2, 4)
    assert split_of(moved, kept) == ((asked, "job") if chosen == "alone" else (north.split, "start"))
    assert split_of(job, kept) == (asked, "start")


def test_a_run_that_was_stopped_comes_to_the_same_models_bit_for_bit_and_another_to_others(tuning: Any) -> None:
    tuning.edit_party("east", lambda content: content.pop("seed"))  # weights are the run's own then

    def run(name: str, **options: Any) -> tuple[str, dict[Any, float]]:
        journal = tuning.run_inside(name, **options)
        losses = {e.of: e.value for _, e in journal.of(Metric) if (e.name, e.part) == ("log_loss", "validation")}
        return _digest(tuning.homes / "east" / "models" / name / PART), losses

    with pytest.raises(IsthmusError):
        run(RUN, leaves={"east": Phase.EVALUATE})
    stopped = _digest(tuning.homes / "east" / "models" / RUN / PART)
    told = {e.of: e.value for _, e in tuning.journal.of(Metric) if e.name == "log_loss"}
    assert run(RUN) == (stopped, told)
    _, other = run("another-1")
    assert {of for of in told if told[of] != other[of]} == {"alone", "tuned"}


def test_the_report_tells_all_three_models_and_how_far_the_training_is(tuning: Any) -> None:
    tuning.job["tuning"]["trunk"] = "frozen"
    journal = tuning.run_inside(RUN)
    summary = _summary(tuning, journal)
    for of in ("alone", "start", "tuned"):
        assert {"auc", "brier"} <= summary["models"][of]["test"].keys()
    assert summary["models"]["tuned"]["test"]["auc_gain"]["value"] == pytest.approx(
        summary["models"]["tuned"]["test"]["auc"]["value"] - summary["models"]["start"]["test"]["auc"]["value"]
    )
    assert (summary["bytes_left"], summary["models"]["start"]["epochs"]) == ({"east": 0}, None)
    told = [event for _, event in journal.of(Progress)]
    assert {(event.phase, event.units) for event in told} == {(Phase.TRAIN, 2)}


def _policy(**changes: Any) -> Change:
    return lambda content: content["policy"].update(changes)


def _release(**changes: Any) -> Change:
    return lambda content: content["policy"]["release"]["stays"].update(changes)


def _sql(text: str) -> Change:
    return lambda content: content["datasets"]["stays"].update(sql=text)


def _all_held_out(content: dict[str, Any]) -> None:
    _sql("SELECT *, 'test' AS part FROM t")(content)
    _release(columns=["age", "crea", "sex", "part"])(content)


BAD: list[tuple[str, dict[str, Any], Change | None]] = [
    ("policy.kind", {}, _policy(kinds=["horizontal"])),
    ("policy.epochs", {}, _policy(max_epochs=2)),
    ("policy.column", {}, _release(columns=["age", "crea"])),
    ("policy.label", {}, _release(labels=[])),
    ("policy.cohort", {}, _release(cohort=None)),
    ("data.label_constant", {}, _sql("SELECT * REPLACE (1 AS died) FROM t")),
    ("data.few_rows", {"split": {"column": "part"}}, _all_held_out),
    ("model.start_missing", {"start": {"digest": "0" * 64}}, None),
    ("model.start_missing", {"start": {"job": "star-job"}}, None),  # nobody has filled the digest in
    ("model.start_differs", {"model": {"kind": "network", "hidden": [9], "dropout": 0.2}}, None),
    ("model.start_differs", {"columns": ["age", "sex"]}, None),
    ("model.start_differs", {"label": {"column": "died", "task": "regression"}}, None),
]


@pytest.mark.parametrize(("code", "changes", "policy"), BAD, ids=[f"{case[0]} {case[1]}"[:40] for case in BAD])
def test_what_cannot_be_tuned_is_named_before_training_and_by_the_check(
    tuning: Any, code: str, changes: dict[str, Any], policy: Change | None
) -> None:
    tuning.job |= changes
    if policy is not None:
        tuning.edit_party("east", policy)
    found = check_job(tuning.load_job(), tuning.homes).error
    with pytest.raises(IsthmusError) as caught:
        tuning.run_inside(RUN)
    assert found is not None
    assert (found.code, caught.value.code) == (code, code)
    assert "east" in caught.value.what
    assert not list(tuning.journal.of(Progress))


OWN = [
    ("label", {"east": Seen(("dead",), SplitRule(0.2, 0.2, 7)), "north": Seen(("died",), SplitRule(0.2, 0.2, 7))}),
    ("split", {"east": Seen(("died",), SplitRule(0.2, 0.2, 7, "part"))}),
    ("split", {"east": Seen(("died",), SplitRule(0.0, 0.2, 7))}),
]


@pytest.mark.parametrize(("field", "seen"), OWN)
def test_where_what_was_held_out_of_ones_own_model_cannot_be_found_again_it_is_refused(
    star: Any, field: str, seen: dict[str, Seen]
) -> None:
    _tune(star, _put(star, seen=seen))
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(RUN)
    assert (caught.value.code, caught.value.facts["field"]) == ("model.start_differs", field)


def test_columns_that_are_not_what_the_models_encoder_says_are_listed(tuning: Any) -> None:
    tuning.edit_party("east", _sql("SELECT * REPLACE (age::VARCHAR AS age, upper(sex) AS sex) FROM t"))
    with pytest.raises(IsthmusError, match="differ from the columns"):
        tuning.run_inside(RUN)
    assert {(event.column, event.what) for _, event in tuning.journal.of(Difference)} == {
        ("age", "type"),
        ("sex", "levels"),
    }
    (asked,) = check_job(tuning.load_job(), tuning.homes).asked
    assert asked.differences == (("age", "type"), ("sex", "levels"))


def test_neither_scores_nor_the_choice_are_told_of_fewer_patients_than_the_floor(tuning: Any) -> None:
    tuning.edit_party("east", _release(cohort=40))
    journal = tuning.run_inside(RUN)
    assert not [*journal.of(Metric), *journal.of(Chosen)]
    assert {event.name: event.value for _, event in journal.of(Count)} == {"rows": 140, "columns": 3, "train_rows": 84}
    assert (tuning.homes / "east" / "models" / RUN / PART).is_file()


def test_progress_is_that_of_the_jobs_epochs_and_counts_no_rows(tuning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "PROGRESS_EVERY_S", 0.0)  # all of it
    tuning.job["tuning"]["patience"] = None
    tuning.edit_party("east", _release(cohort=400))
    journal = tuning.run_inside(RUN)
    told = [(event.index, event.done, event.total) for _, event in journal.of(Progress)]
    assert told == [(model, epoch, 3) for model in (1, 2) for epoch in (1, 2, 3)]


def test_what_the_policy_does_not_publish_is_not_told(tuning: Any) -> None:
    tuning.edit_party("east", _policy(publish=["counts"]))
    journal = tuning.run_inside(RUN)
    assert not [*journal.of(Metric), *journal.of(Chosen)]
    assert [event for _, event in journal.of(Count)]


def test_the_check_says_that_nothing_leaves_and_leaves_nothing_behind(tuning: Any) -> None:
    before = sorted(tuning.homes.rglob("*"))
    check = check_job(tuning.load_job(), tuning.homes)
    assert (check.error, check.leaving) == (None, ())
    assert [(asked.party, asked.rows, asked.floor) for asked in check.asked] == [("east", 140, 5)]
    assert any("neither that it was tuned" in what for _, what in check.learns)
    assert sorted(tuning.homes.rglob("*")) == before


def test_the_terminal_runs_and_checks_it_from_the_run_of_the_job_that_it_names(star: Any) -> None:
    file = star.homes / "east" / "models" / "star-job-1" / PART
    _saved(seen={"east": Seen(("died",), SplitRule(0.2, 0.2, 3))}).save(file, party="east")
    _tune(star, None)
    done = star.command("check", str(star.job_file()))
    assert (done.returncode, "start.unknown" in done.stderr) == (2, True)
    folder = star.runs / "star-job-0a1b2c3d-1"
    folder.mkdir(parents=True)
    trained = {"kind": "horizontal", "name": "star-job"}
    record = RunRecord(run=folder.name, job=trained, job_digest="", status="finished", started=datetime.now(UTC))
    (folder / "run.json").write_text(record.model_dump_json())
    (folder / "summary.json").write_text(f'{{"digests": {{"models": {{"east": "{_digest(file)}"}}}}}}')
    done = star.command("check", str(star.job_file()))
    assert (done.returncode, "Nothing has left" in done.stdout) == (0, True), done.stderr
