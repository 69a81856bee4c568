"""The source learns from all its rows, and tells of a shared row what it would tell of a stranger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.horizontal.metrics import auc
from isthmus.horizontal.tabular import Encoded, TabularEncoder, private_generator
from isthmus.parties.checkpoint import read_tensors
from isthmus.parties.errors import InputError
from isthmus.parties.table import Column
from isthmus.transfer import pretrain as module
from isthmus.transfer.pretrain import Pretrained, PretrainPlan, PretrainReport, Turn, pretrain, pretrain_without
from isthmus.transfer.trunk import SwapNoise, train_trunk
from isthmus.vertical.models import Bottom

ROWS, SHARED = 120, 23
PLAN = PretrainPlan(hidden=(8, 4), epochs=2, batch_size=16, learning_rate=0.01, folds=3)
WITHOUT_LABEL = replace(PLAN, how="self_supervised")
ALIGNMENT = "2" * 64


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _table(rows: int = ROWS) -> tuple[list[Column], np.ndarray[Any, Any]]:
    """Numbers with gaps, a small and a large category, and a label that depends on them."""
    generator = np.random.default_rng(4)
    first, second = generator.normal(size=(2, rows))
    gaps = np.where(generator.random(rows) < 0.1, np.nan, first)
    ward = np.array(["a" if value < -0.5 else None if value < 0 else "c" for value in second], dtype=object)
    code = np.array([f"{value:02d}" for value in generator.integers(0, 20, rows)], dtype=object)
    label = (1.5 * first - second + 0.5 * generator.normal(size=rows) > 0).astype(np.float32)
    return [
        Column("x", "number", gaps),
        Column("y", "number", second),
        Column("ward", "category", ward),
        Column("code", "category", code),
    ], label


COLUMNS, LABEL = _table()
POSITIONS = np.random.default_rng(8).permutation(ROWS)[:SHARED]


def _taken(columns: Sequence[Column], rows: np.ndarray[Any, Any]) -> list[Column]:
    return [replace(column, values=column.values[rows]) for column in columns]


@pytest.fixture
def learn(tmp_path: Path) -> Callable[..., Pretrained]:
    """Pretrains on the table, in a folder of its own unless one is given."""
    count = 0

    def run(plan: PretrainPlan = PLAN, **changes: Any) -> Pretrained:
        nonlocal count
        count += 1
        options: dict[str, Any] = {
            "columns": COLUMNS,
            "label": LABEL if plan.how == "supervised" else None,
            "shared": POSITIONS,
            "party": "insurer",
            "alignment_digest": ALIGNMENT,
            "private_seed": 11,
            "identity": "a job",
            "folder": tmp_path / str(count),
        }
        return pretrain(plan=plan, **{**options, **changes})

    return run


def _assert_same(one: Pretrained, other: Pretrained) -> None:
    """Bit for bit."""
    assert len(one.models) == len(other.models)
    for left, right in zip(one.models, other.models, strict=True):
        for name, value in left.network.state_dict().items():
            assert value.numpy().tobytes() == right.network.state_dict()[name].numpy().tobytes(), name
    assert one.given("embedding").tobytes() == other.given("embedding").tobytes()


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_an_embedding_that_was_turned_and_moved_is_turned_back():
    square = np.array([[1, 0], [0, 1], [-1, 0], [0, -2]], np.float32)
    quarter = square @ np.array([[0, 1], [-1, 0]], np.float32) + np.array([5, 7], np.float32)
    turn = Turn.between(quarter, square)
    np.testing.assert_allclose(turn.rotation, [[0, -1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(turn(quarter), square, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_turning_keeps_the_distances_between_patients(width: int, seed: int):
    generator = np.random.default_rng(seed)
    embedding, reference = generator.normal(size=(2, 12, width)).astype(np.float32)
    turned = Turn.between(embedding, reference)(embedding)
    np.testing.assert_allclose(
        np.linalg.norm(turned[:, None] - turned, axis=2),
        np.linalg.norm(embedding[:, None] - embedding, axis=2),
        atol=1e-4,
    )


def test_swapped_values_come_from_the_same_column_of_another_row():
    encoder = TabularEncoder.fit(COLUMNS, np.arange(ROWS))
    rows = encoder.transform(COLUMNS, ROWS)
    numbered = Encoded(
        torch.arange(ROWS)[:, None] + 1000.0 * torch.arange(rows.dense.shape[1]),
        torch.arange(ROWS)[:, None].repeat(1, rows.codes.shape[1]),
    )
    swapped = SwapNoise(encoder, 0.999999, private_generator(1, "test"))(numbered)
    giver = swapped.dense - 1000.0 * torch.arange(rows.dense.shape[1])
    assert ((giver >= 0) & (giver < ROWS)).all(), "every value is from its own column"
    assert (giver != torch.arange(ROWS)[:, None]).all() and (swapped.codes != numbered.codes).all()
    # x with its indicator of missing is one value, y another, and the three one-hot columns of ward are one.
    x, indicator, y, *ward = giver.T
    assert (x == indicator).all() and (x != y).any() and all((ward[0] == one).all() for one in ward) and len(ward) == 3


def test_the_share_of_swapped_values_is_the_plans():
    encoder = TabularEncoder.fit(COLUMNS, np.arange(ROWS))
    count = 20_000
    numbered = Encoded(torch.arange(count)[:, None].repeat(1, encoder.dense_width), torch.zeros(count, 1).long())
    swapped = SwapNoise(encoder, 0.3, private_generator(1, "test"))(numbered).dense
    assert (swapped != numbered.dense).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_a_batch_of_one_row_has_nothing_to_swap():
    encoder = TabularEncoder.fit(COLUMNS, np.arange(ROWS))
    row = encoder.transform(COLUMNS, ROWS)[torch.tensor([5])]
    assert torch.equal(SwapNoise(encoder, 0.9, private_generator(1, "test"))(row).dense, row.dense)


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([[1, 2], [1, 3]], False),
        ([[1, 2], [1, 2]], True),
        ([[0, 0], [0, 0]], True),
        ([[3e4, 0], [3e4 + 0.002, 0]], True),  # what float32 leaves
        ([[3e-9, 0], [5e-9, 0]], False),
        ([[1, 2]], True),
    ],
)
def test_constant_means_that_no_column_tells_two_rows_apart(values: list[list[float]], constant: bool):
    assert module.is_constant(np.array(values, np.float32)) is constant


# --- out of fold -----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(2, 20))
def test_every_shared_row_is_in_one_fold_and_folds_are_of_equal_size(shared: int, folds: int):
    found = module._folds(shared, replace(PLAN, folds=folds), ALIGNMENT)
    sizes = np.bincount(found, minlength=min(folds, shared))
    assert len(sizes) == min(folds, shared) and sizes.sum() == shared and np.ptp(sizes) <= 1


def test_folds_are_those_of_one_alignment_and_one_seed():
    folds = [
        module._folds(SHARED, plan, digest).tolist()
        for plan in (PLAN, replace(PLAN, seed=8))
        for digest in (ALIGNMENT, "3" * 64)
    ]
    assert len({tuple(one) for one in folds}) == 4


@pytest.mark.parametrize("row", [0, 1, 2, 22])
def test_what_is_told_of_a_row_does_not_depend_on_its_own_label(learn, row: int):
    other = LABEL.copy()
    other[POSITIONS[row]] = 1 - other[POSITIONS[row]]
    as_it_is, changed = learn(), learn(label=other)
    for give in ("score", "embedding"):
        before, after = as_it_is.given(give), changed.given(give)
        assert before[row].tobytes() == after[row].tobytes()
        mates = as_it_is.folds == as_it_is.folds[row]
        assert before[mates].tobytes() == after[mates].tobytes()
        assert (before[~mates] != after[~mates]).any(axis=1).all(), "the label does teach the other models"


@pytest.mark.parametrize("plan", [PLAN, WITHOUT_LABEL], ids=["supervised", "self_supervised"])
def test_a_model_learns_nothing_from_the_columns_of_its_own_fold(learn, plan: PretrainPlan):
    row = 4
    place = POSITIONS[row]
    other = [replace(column, values=column.values.copy()) for column in COLUMNS]
    for column, value in zip(other, [99.0, -99.0, "c", "07"], strict=True):
        column.values[place] = value
    as_it_is, changed = learn(plan), learn(plan, columns=other)
    fold = as_it_is.folds[row]
    shared = _taken(COLUMNS, POSITIONS)  # asked about the true columns
    before, after = as_it_is.models[fold].told(shared, "embedding"), changed.models[fold].told(shared, "embedding")
    assert before.tobytes() == after.tobytes()
    elsewhere = (fold + 1) % 3
    assert as_it_is.models[elsewhere].told(shared, "embedding").tobytes() != (
        changed.models[elsewhere].told(shared, "embedding").tobytes()
    )


def test_a_level_that_one_fold_alone_has_leaves_the_models_alike(learn):
    rare = np.where(np.arange(ROWS) == POSITIONS[4], "rare", "usual").astype(object)
    gap = np.where(np.arange(ROWS) == POSITIONS[5], np.nan, COLUMNS[1].values)
    learnt = learn(columns=[Column("rare", "category", rare), Column("gap", "number", gap)])
    assert {model.network.bottom.input.width for model in learnt.models} == {5}


def test_a_new_row_is_told_of_by_the_mean_of_all_models(learn):
    learnt, new = learn(), _taken(COLUMNS, np.array([3, 5]))
    for give in ("score", "embedding"):
        told = [model.told(new, give).astype(np.float64) for model in learnt.models]
        np.testing.assert_allclose(learnt.represent(new, give), sum(told) / 3, atol=1e-6)


def test_a_score_is_one_number_and_an_embedding_as_many_as_the_last_layer_is_wide(learn):
    learnt = learn()
    assert learnt.given("score").shape == (SHARED, 1) and learnt.given("embedding").shape == (SHARED, 4)
    assert learnt.given("score").dtype == learnt.given("embedding").dtype == np.float32


def test_a_source_all_of_whose_rows_are_shared_tells_of_them_too(learn):
    learnt = learn(shared=np.random.default_rng(1).permutation(ROWS))
    assert learnt.given("embedding").shape == (ROWS, 4) and len(learnt.models) == 3


def test_fewer_shared_rows_than_folds_take_a_model_each(learn):
    learnt = learn(shared=POSITIONS[:2])
    assert len(learnt.models) == 2 and sorted(learnt.folds) == [0, 1] and learnt.given("score").shape == (2, 1)


# --- what is learnt --------------------------------------------------------------------------------------------------


def test_a_score_tells_shared_and_new_rows_apart(learn):
    columns, label = _table(600)
    shared, new = np.arange(0, 150), np.arange(300, 600)
    mine = [column for column in _taken(columns, np.arange(300)) if column.name != "code"]
    learnt = learn(replace(PLAN, epochs=6, folds=2), columns=mine, label=label[:300], shared=shared)
    assert auc(label[shared], learnt.given("score")[:, 0]) > 0.85
    assert auc(label[new], learnt.represent(_taken(columns, new), "score")[:, 0]) > 0.85


def test_without_a_label_rows_are_rebuilt_from_their_embedding():
    columns, _ = _table(400)
    mine = [column for column in columns if column.name != "code"]
    plan = replace(WITHOUT_LABEL, epochs=12, hidden=(16, 8), swap_noise=0.2, dropout=0.0, learning_rate=0.02)
    network = train_trunk(mine, None, np.arange(300), plan, private_seed=11, on_epoch=lambda epoch: None)
    rows = network.encoder.transform(mine, 400)[torch.arange(300, 400)]
    with torch.no_grad():
        rebuilt = network.head(network.bottom(rows))
    assert ((rebuilt - rows.dense) ** 2).mean() < 0.3 * rows.dense.var(dim=0, correction=0).mean()


def test_large_categories_alone_can_be_rebuilt(learn):
    learnt = learn(WITHOUT_LABEL, columns=[COLUMNS[3]])
    assert learnt.models[0].network.encoder.dense_width == 0 and learnt.given("embedding").shape == (SHARED, 4)


def test_the_trunk_for_split_training_knows_nothing_of_the_rows_left_out(tmp_path: Path):
    held_out = POSITIONS[:9]
    other, label = [replace(column, values=column.values.copy()) for column in COLUMNS], LABEL.copy()
    other[0].values[held_out], label[held_out] = 7.0, 1 - label[held_out]
    options: dict[str, Any] = {"party": "insurer", "private_seed": 11, "identity": "a job"}
    trunks = [
        pretrain_without(columns, outcome, held_out, PLAN, folder=tmp_path / name, **options)
        for name, columns, outcome in [("one", COLUMNS, LABEL), ("two", other, label)]
    ]
    (encoder, bottom), (again, same) = trunks
    assert isinstance(bottom, Bottom) and encoder.to_dict() == again.to_dict()
    for name, value in bottom.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    fresh = Bottom(PLAN.bottom, encoder, 11, bias=True)
    assert not torch.equal(fresh.body[0].weight, bottom.body[0].weight)  # type: ignore[index]


# --- again -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAN, WITHOUT_LABEL], ids=["supervised", "self_supervised"])
def test_the_same_seeds_give_the_same_bits_and_the_global_generator_is_left_alone(learn, plan: PretrainPlan):
    before = torch.get_rng_state()
    one, other = learn(plan), learn(plan)
    assert torch.equal(before, torch.get_rng_state())
    _assert_same(one, other)


def test_whoever_knows_the_job_cannot_make_the_models_again(learn):
    assert learn().given("score").tobytes() != learn(private_seed=12).given("score").tobytes()


@pytest.mark.parametrize("plan", [PLAN, WITHOUT_LABEL], ids=["supervised", "self_supervised"])
def test_a_killed_attempt_goes_on_with_the_next_model_and_ends_the_same(learn, tmp_path: Path, plan: PretrainPlan):
    reports: list[PretrainReport] = []

    def killed(report: PretrainReport) -> None:
        if report.model == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        learn(plan, folder=folder, on_report=killed)
    resumed = learn(plan, folder=folder, on_report=reports.append)
    assert reports == [
        PretrainReport(1, 3, 2, 2, reloaded=True),
        PretrainReport(2, 3, 2, 2, reloaded=True),
        PretrainReport(3, 3, 1, 2),
        PretrainReport(3, 3, 2, 2),
    ]
    _assert_same(resumed, learn(plan))


@pytest.mark.parametrize(
    "change",
    [{"identity": "another job"}, {"plan": replace(PLAN, dropout=0.2)}, {"shared": POSITIONS[::-1].copy()}],
    ids=["identity", "plan", "rows"],
)
def test_models_of_something_else_are_trained_anew(learn, tmp_path: Path, change: dict[str, Any]):
    reports: list[PretrainReport] = []
    learn(folder=tmp_path / "kept")
    found = learn(**{"folder": tmp_path / "kept", "on_report": reports.append, **change})
    assert not any(report.reloaded for report in reports)
    _assert_same(found, learn(**change))


def test_the_saved_part_holds_every_model_with_its_encoder(learn, tmp_path: Path):
    learnt = learn()
    learnt.save(tmp_path / "part.safetensors")
    arrays, meta = read_tensors(tmp_path / "part.safetensors")
    assert meta["party"] == "insurer" and meta["plan"]["hidden"] == [8, 4]
    for fold, model in enumerate(learnt.models):
        assert TabularEncoder.from_dict(meta["encoders"][fold]).to_dict() == model.network.encoder.to_dict()
        assert (arrays[f"{fold}.turn.rotation"] == model.turn.rotation).all()
        for name, value in model.network.state_dict().items():
            assert (arrays[f"{fold}.{name}"] == value.numpy()).all()


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give", ["score", "embedding"])
def test_shared_patients_who_are_all_alike_are_told(learn, give: Any):
    values = np.random.default_rng(2).normal(size=ROWS)
    values[POSITIONS] = 0.5  # so that the models differ, and each says one thing
    with pytest.raises(InputError) as caught:
        learn(columns=[Column("x", "number", values)]).given(give)
    assert (caught.value.code, caught.value.facts) == ("embedding.constant", {"party": "insurer"})


@pytest.mark.parametrize("plan", [PLAN, WITHOUT_LABEL], ids=["supervised", "self_supervised"])
def test_training_that_runs_away_is_told_with_its_epoch(learn, plan: PretrainPlan):
    with pytest.raises(InputError) as caught:
        learn(replace(plan, learning_rate=1e30))
    assert (caught.value.code, caught.value.facts) == ("train.diverged", {"epoch": 1})


def test_a_source_with_no_rows_but_the_fold_is_told_so(learn):
    with pytest.raises(InputError) as caught:
        learn(columns=_taken(COLUMNS, np.arange(3)), label=LABEL[:3], shared=np.arange(3), plan=replace(PLAN, folds=2))
    assert caught.value.code == "data.few_rows"
    assert caught.value.facts == {"party": "insurer", "count": 1, "allowed": 2}
