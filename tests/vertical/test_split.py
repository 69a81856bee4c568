from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from isthmus.horizontal import TabularEncoder
from isthmus.parties.errors import InputError, PeerFailure
from isthmus.parties.network.message import Step, Topic, decode
from isthmus.parties.table import Column
from isthmus.vertical import EpochReport, SplitPlan, split_rows
from isthmus.vertical.batches import batches, epoch_order
from isthmus.vertical.training import Stopping

Make = Callable[..., Any]
ALIGNMENT = "2" * 64

CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "one passive party, 270 steps of Adam, dropout": (("lab",), {"epochs": 30, "patience": 30}),
    "two passive parties": (("lab", "clinic"), {}),
    "two passive parties, 216 steps, without own columns": (
        ("lab", "clinic"),
        {"own": False, "epochs": 24, "patience": 24},
    ),
    "one passive party, without own columns": (("lab",), {"own": False}),
    "sum": (("lab", "clinic"), {"merge": "sum"}),
    "mean": (("lab", "clinic"), {"merge": "mean"}),
    "mean without own columns": (("lab", "clinic"), {"merge": "mean", "own": False}),
    "logistic": (("lab",), {"kind": "logistic", "epochs": 30, "patience": 30}),
    "logistic with two passive parties": (("lab", "clinic"), {"kind": "logistic"}),
    "logistic without own columns": (("lab",), {"kind": "logistic", "own": False}),
    "no hidden layer in the top": (("lab",), {"top": ()}),
    "one layer in the bottom, no dropout, weight decay": (
        ("lab",),
        {"bottom": (5,), "dropout": 0.0, "weight_decay": 0.1},
    ),
    "a last batch of one row": (("lab",), {"batch_size": 11}),  # 144 training rows
    "one batch an epoch": (("lab",), {"batch_size": 1000}),
}


@pytest.mark.parametrize("name", CASES)
def test_split_training_is_central_training_bit_for_bit(
    name: str, make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    passive, options = CASES[name]
    case = make_case(*passive, **options)
    outcome, central = run_split(case, tmp_path), case.central()
    wanted = {f"{party}.{key}": value for party in case.tables for key, value in central.part(party).items()}
    assert_same(outcome.weights(), wanted)
    assert outcome.scores.tobytes() == central.scores(np.arange(len(case.label))).tobytes()


def test_training_does_not_touch_the_global_generator(make_case: Make, run_split: Make, tmp_path: Path):
    before = torch.get_rng_state()
    case = make_case("lab")
    run_split(case, tmp_path).weights()
    case.central()
    assert torch.equal(torch.get_rng_state(), before)


def test_another_private_seed_is_another_model(make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab")
    first = run_split(case, tmp_path / "1").weights()
    second = run_split(case, tmp_path / "2", seeds={"insurer": 11, "lab": 99}).weights()
    assert not np.array_equal(first["lab.body.0.weight"], second["lab.body.0.weight"])


def test_early_stopping_restores_the_best_weights(make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path):
    case = make_case("lab", epochs=40, patience=2, learning_rate=0.05)
    reports: list[EpochReport] = []
    outcome = run_split(case, tmp_path / "whole", on_epoch={"insurer": reports.append})
    ended = [report for report in reports if report.loss is not None]
    aucs = [report.validation_auc for report in ended]
    best = 1 + int(np.argmax(aucs))
    assert len(ended) == best + 2 < 40
    assert outcome.parts["insurer"].best_epoch == best
    # A training that ends at the best epoch has the same weights.
    assert_same(outcome.weights(), run_split(case.with_plan(epochs=best), tmp_path / "short").weights())


def test_training_improves_and_reports_every_epoch_of_both_sides(make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab", rows=400, epochs=10, patience=10)
    reports: dict[str, list[EpochReport]] = {"insurer": [], "lab": []}
    run_split(case, tmp_path, on_epoch={party: found.append for party, found in reports.items()})
    for party, found in reports.items():
        assert [(report.epoch, report.batch) for report in found] == [
            (epoch, batch) for epoch in range(1, 11) for batch in range(1, 16)
        ], party
        assert {(report.epochs, report.batches, report.resumed_from) for report in found} == {(10, 15, None)}
    losses = [report.loss for report in reports["insurer"] if report.loss is not None]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert all(report.loss is None and report.validation_auc is None for report in reports["lab"])


def test_stopping_waits_for_so_many_epochs_without_a_better_auc():
    stopping = Stopping(patience=2)
    seen = []
    for score in (0.6, 0.7, 0.7, 0.65, 0.9):
        stopping.note(1.0, score)
        seen.append((stopping.best_epoch, stopping.is_best, stopping.stop))
    assert seen == [(1, True, False), (2, True, False), (2, False, False), (2, False, True), (5, True, False)]


def test_logistic_regression_is_about_that_of_scikit_learn(make_case: Make, run_split: Make, tmp_path: Path):
    generator = np.random.default_rng(4)
    values = generator.normal(size=(1500, 4))
    label = (values @ [1.0, -1.0, 0.7, 0.4] + generator.logistic(size=1500) > 0).astype(np.float32)
    case = make_case("lab", kind="logistic", epochs=60, patience=60, batch_size=64, learning_rate=0.02)
    columns = [Column(f"c{place}", "number", values[:, place]) for place in range(4)]
    case = type(case)({"insurer": columns[:2], "lab": columns[2:]}, label, case.plan)
    scores = run_split(case, tmp_path).scores
    parts = split_rows(1500, 0.2, 0.2, case.plan.seed, ALIGNMENT)
    theirs = LogisticRegression().fit(values[parts.train], label[parts.train]).predict_proba(values)[:, 1]
    ours, reference = (roc_auc_score(label[parts.test], found[parts.test]) for found in (scores, theirs))
    assert reference > 0.75
    assert ours == pytest.approx(reference, abs=0.01)
    assert np.abs(scores - theirs).max() < 0.1


# --- what the parties must hold alike, and what is wrong with data and settings ---------------------------------------


@pytest.mark.parametrize(
    "different",
    [
        {"plans": {"lab": SplitPlan(seed=8)}},
        {"plans": {"lab": SplitPlan(batch_size=17)}},
        {"plans": {"lab": SplitPlan(merge="sum")}},
        {"jobs": {"lab": "3" * 64}},
        {"alignments": {"lab": "3" * 64}},
    ],
)
def test_parties_that_hold_something_else_stop_before_training(
    different: dict[str, Any], make_case: Make, run_split: Make, tmp_path: Path
):
    case = make_case("lab")
    case = type(case)(case.tables, case.label, SplitPlan())
    outcome = run_split(case, tmp_path, **different)
    assert isinstance(outcome.parts["lab"], InputError)
    assert (outcome.parts["lab"].code, outcome.parts["lab"].facts["field"]) == ("job.not_agreed", "training")
    assert isinstance(outcome.parts["insurer"], PeerFailure)
    assert outcome.parts["insurer"].code == "peer.gone"
    assert {decode(bytearray(frame)).step for frame in outcome.frames} == {Step.SETUP}


def test_parties_with_other_numbers_of_rows_stop_before_training(make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab")
    short = [Column(column.name, column.kind, column.values[:-1]) for column in case.tables["lab"]]
    outcome = run_split(type(case)({**case.tables, "lab": short}, case.label, case.plan), tmp_path)
    assert outcome.parts["lab"].code == "job.not_agreed"
    assert outcome.parts["insurer"].code == "peer.gone"


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_with_one_outcome_is_an_error_before_anything_is_sent(
    part: str, make_case: Make, run_split: Make, tmp_path: Path
):
    case = make_case("lab")
    label = case.label.copy()
    label[getattr(split_rows(len(label), 0.2, 0.2, case.plan.seed, ALIGNMENT), part)] = 1
    case = type(case)(case.tables, label, case.plan)
    outcome = run_split(case, tmp_path)
    assert (outcome.parts["insurer"].code, outcome.parts["insurer"].facts) == ("data.split", {"part": part})
    assert outcome.parts["lab"].code == "peer.gone"
    assert outcome.frames == []
    with pytest.raises(InputError, match=r"data\.split|outcome"):
        case.central()


@pytest.mark.parametrize(("rate", "who"), [(1e10, "insurer"), (1e20, "lab")])  # overflows in the top, in a bottom
def test_training_that_runs_away_is_called_that(
    rate: float, who: str, make_case: Make, run_split: Make, tmp_path: Path
):
    case = make_case("lab", learning_rate=rate, epochs=20, patience=20)
    outcome = run_split(case, tmp_path)
    codes = {party: getattr(part, "code", repr(part)) for party, part in outcome.parts.items()}
    assert codes == {"insurer": "peer.gone", "lab": "peer.gone"} | {who: "train.diverged"}
    with pytest.raises(InputError) as raised:
        case.central()
    assert raised.value.code == "train.diverged"


# --- what leaves, and what is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_nothing_but_cut_layers_and_gradients_goes_over(own: bool, make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab", "clinic", own=own)
    messages = [decode(bytearray(frame)) for frame in run_split(case, tmp_path).frames]
    plan, rows = case.plan, len(case.label)
    fields = {
        Step.SETUP: {"job", "alignment", "rows", "plan", "order"},
        Step.READY: {"steps"},
        Step.RESUME: {"step"},
        Step.EPOCH: {"epoch", "best", "stop"},
        Step.FORWARD: set(),
        Step.BACKWARD: set(),
    }
    arrays = {Step.FORWARD: ["cut"], Step.BACKWARD: ["gradient"]}
    for message in messages:
        assert set(message.fields) == fields[message.step]
        assert list(message.arrays) == arrays.get(message.step, [])
        for array in message.arrays.values():
            assert array.dtype == np.float32
            assert array.shape[1:] == (plan.cut_width,)
    scored = sum(len(m.arrays["cut"]) for m in messages if m.topic is Topic.EVALUATE)
    forward = sum(len(m.arrays["cut"]) for m in messages if m.topic is Topic.TRAIN and m.step is Step.FORWARD)
    backward = sum(len(m.arrays["gradient"]) for m in messages if m.step is Step.BACKWARD)
    parts = split_rows(rows, 0.2, 0.2, plan.seed, ALIGNMENT)
    assert scored == 2 * rows
    assert forward == 2 * 3 * (len(parts.train) + len(parts.validation))
    assert backward == 2 * 3 * len(parts.train)


def test_no_column_value_no_label_and_no_index_is_in_any_frame(make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab", "clinic")
    whole = b"\0\0\0\0".join(run_split(case, tmp_path).frames)
    parts = split_rows(len(case.label), 0.2, 0.2, case.plan.seed, ALIGNMENT)
    secrets: list[bytes] = []
    for columns in case.tables.values():
        for column in columns:
            if column.kind == "number":
                known = column.values[~np.isnan(column.values)]
                # Of float32, two neighbours: four bytes alone turn up by chance in a megabyte of weights.
                pairs = np.float32(np.column_stack([known[:-1], known[1:]]))
                secrets += [value.tobytes() for value in known] + [pair.tobytes() for pair in pairs]
        dense = TabularEncoder.fit(columns, parts.train).transform(columns, len(case.label)).dense.numpy()
        secrets += [row.tobytes() for row in dense]
    for epoch in range(1, 4):
        for batch in batches(epoch_order(parts.train, case.plan.seed, epoch), case.plan.batch_size):
            secrets += [batch.astype(dtype).tobytes() for dtype in (np.int64, np.int32)]
            secrets += [case.label[batch].astype(dtype).tobytes() for dtype in (np.float32, np.float64, np.uint8)]
    assert len(secrets) > 1500
    assert not [secret for secret in set(secrets) if secret in whole]
    assert b"residence" not in whole


def test_each_party_saves_its_own_part_with_its_encoder(make_case: Make, run_split: Make, tmp_path: Path):
    case = make_case("lab")
    outcome = run_split(case, tmp_path)
    for party, part in outcome.parts.items():
        path = tmp_path / "models" / party / "part.safetensors"
        part.save(path)
        with safe_open(path, framework="numpy") as file:
            assert set(file.keys()) == set(part.model.state_dict())
            for name, value in part.model.state_dict().items():
                assert np.array_equal(file.get_tensor(name), value.numpy())
            meta = json.loads(file.metadata()["isthmus"])
        assert meta["party"] == party
        assert meta["plan"]["bottom"] == [8, 4]
        encoder = TabularEncoder.from_dict(meta["encoder"])
        again = encoder.transform(case.tables[party], len(case.label))
        assert torch.equal(again.dense, part.rows.dense)
        assert torch.equal(again.codes, part.rows.codes)
