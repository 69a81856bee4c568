from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from isthmus.parties.checkpoint import read_tensors, write_tensors
from isthmus.parties.table import Column
from isthmus.transfer.linear import LinearModel, LinearPlan

PLAN = LinearPlan()
LABEL = np.array([1.0, 0, 1, 0, 1, 0])
AGE = Column("age", "number", np.array([40.0, 50, 60, 40, 50, math.nan]))
WARD = Column("ward", "category", np.array(["a", "b", "a", "b", None, "b"], dtype=object))
SCORE = np.array([[2.0], [-1], [1], [0], [3], [-2]])


def rows(seed: int, count: int = 60) -> tuple[Column, Column, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    age, score = draw.normal(60, 15, count), draw.normal(size=(count, 1))
    label = (draw.random(count) < 1 / (1 + np.exp(-(age - 60) / 15 - score[:, 0]))).astype(float)
    label[:2] = 0, 1
    return Column("age", "number", age), Column("ward", "category", draw.choice(["a", "b"], count)), score, label


def test_own_columns_and_a_score_are_the_matrix_written_out_by_hand():
    # age: mean 48, variance (64 + 4 + 144 + 64 + 4) / 5 = 56; one is missing and has an indicator
    age = (np.array([40, 50, 60, 40, 50, 48]) - 48) / math.sqrt(56)
    # score: mean 1/2, mean square 19/6, variance 35/12; ten times less penalised, so times sqrt(10)
    score = (SCORE[:, 0] - 1 / 2) / math.sqrt(35 / 12) * math.sqrt(0.5 / 0.05)
    missing, unknown = [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]
    ward_a, ward_b = [1, 0, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1]
    matrix = np.column_stack([age, missing, unknown, ward_a, ward_b, score])
    direct = LogisticRegression(C=0.05, tol=1e-8).fit(matrix, LABEL)

    model = LinearModel.fit([AGE, WARD], SCORE, LABEL, PLAN)

    assert model.logits([AGE, WARD], SCORE) == pytest.approx(direct.decision_function(matrix), abs=1e-4)
    assert model.probabilities([AGE, WARD], SCORE) == pytest.approx(direct.predict_proba(matrix)[:, 1], abs=1e-4)


def test_a_score_alone_solves_the_equation_of_its_penalty():
    # Scores of ±1 that are right for four and wrong for two, as many of each outcome: the bias is 0, and with the
    # input x·sqrt(10), |x| = 1, the weight w solves w = c·sqrt(10)·(4σ(-z) - 2σ(z)), where z = w·sqrt(10).
    score = np.array([[1.0], [1], [-1], [-1], [-1], [1]])
    label = np.array([1.0, 1, 1, 0, 0, 0])
    model = LinearModel.fit([], score, label, PLAN)
    z = model.logits([], np.array([[1.0]]))[0]
    sigma = 1 / (1 + math.exp(-z))
    assert z / math.sqrt(10) == pytest.approx(0.05 * math.sqrt(10) * (4 * (1 - sigma) - 2 * sigma), abs=1e-5)
    assert model.logits([], np.array([[-1.0]]))[0] == pytest.approx(-z, abs=1e-5)


def test_an_embedding_has_the_penalty_of_own_columns():
    embedding = np.column_stack([SCORE, [1.0, 0, 0, 1, 1, 0]])
    standardised = (embedding - embedding.mean(0)) / embedding.std(0)
    direct = LogisticRegression(C=0.05, tol=1e-8).fit(standardised, LABEL)
    model = LinearModel.fit([], embedding, LABEL, PLAN)
    assert model.logits([], embedding) == pytest.approx(direct.decision_function(standardised), abs=1e-4)


def test_new_patients_are_encoded_as_those_it_was_fitted_to():
    model = LinearModel.fit([AGE, WARD], SCORE, LABEL, PLAN)
    one = [Column(column.name, column.kind, column.values[2:3]) for column in (AGE, WARD)]
    assert model.logits(one, SCORE[2:3])[0] == pytest.approx(model.logits([AGE, WARD], SCORE)[2], abs=1e-9)


def test_soft_labels_are_fitted_exactly_where_nothing_is_penalised():
    ward = Column("ward", "category", np.array(["a", "a", "b", "b"], dtype=object))
    model = LinearModel.fit([ward], None, np.array([0.1, 0.3, 0.9, 0.9]), LinearPlan(c=1e5))
    assert model.probabilities([ward]) == pytest.approx([0.2, 0.2, 0.9, 0.9], abs=1e-3)  # each ward's mean


def test_soft_labels_count_each_patient_once():
    # With and without the outcome, weighted by q and 1 - q: the same as a hundred patients in place of each
    hard = np.concatenate([np.repeat([1.0, 0], [7, 3]), np.repeat([1.0, 0], [2, 8])])
    score = np.repeat([[1.0], [-1]], 10, axis=0)
    soft = LinearModel.fit([], score[::10], np.array([0.7, 0.2]), LinearPlan(c_score=5.0))
    many = LinearModel.fit([], score, hard, LinearPlan(c_score=0.5))
    assert soft.logits([], score) == pytest.approx(many.logits([], score), abs=1e-4)


def test_a_constant_in_what_is_given_changes_nothing():
    with_it = np.column_stack([SCORE, np.full(6, 0.1), SCORE**2])
    without = np.column_stack([SCORE, SCORE**2])
    found = LinearModel.fit([AGE], with_it, LABEL, PLAN).logits([AGE], with_it)
    assert found == pytest.approx(LinearModel.fit([AGE], without, LABEL, PLAN).logits([AGE], without), abs=1e-5)


def test_a_category_of_many_levels_is_one_hot():
    ward = Column("ward", "category", np.array([f"w{place}" for place in range(40)], dtype=object))
    model = LinearModel.fit([ward], None, np.tile([0.0, 1], 20), PLAN)
    assert model.weights.shape == (41,)
    assert len(np.unique(np.sign(model.logits([ward])))) == 2


def test_one_outcome_alone_cannot_be_fitted():
    with pytest.raises(ValueError, match="class"):
        LinearModel.fit([AGE], None, np.ones(6), PLAN)


@pytest.mark.parametrize(("own", "told"), [((AGE, WARD), None), ((), SCORE), ((AGE, WARD), SCORE)])
def test_a_model_comes_back_from_disk_to_the_bit(tmp_path: Path, own: tuple[Column, ...], told: np.ndarray | None):
    model = LinearModel.fit(own, told, LABEL, PLAN)
    arrays, meta = model.to_tensors()
    write_tensors(tmp_path / "model.safetensors", arrays, meta, party="lab")
    again = LinearModel.from_tensors(*read_tensors(tmp_path / "model.safetensors"))
    assert again.logits((AGE, WARD), SCORE).tobytes() == model.logits((AGE, WARD), SCORE).tobytes()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_order_of_the_patients_changes_nothing(seed: int):
    age, ward, score, label = rows(seed)
    order = np.random.default_rng(seed).permutation(len(label))
    turned = [Column(column.name, column.kind, column.values[order]) for column in (age, ward)]
    model = LinearModel.fit([age, ward], score, label, PLAN)
    again = LinearModel.fit(turned, score[order], label[order], PLAN)
    assert again.logits([age, ward], score) == pytest.approx(model.logits([age, ward], score), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_the_unit_of_a_score_changes_nothing(seed: int, scale: float, shift: float):
    age, _, score, label = rows(seed)
    model = LinearModel.fit([age], score, label, PLAN)
    other = score * scale + shift
    again = LinearModel.fit([age], other, label, PLAN)
    assert again.logits([age], other) == pytest.approx(model.logits([age], score), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_other_outcome_is_the_other_sign(seed: int):
    age, ward, score, label = rows(seed)
    model = LinearModel.fit([age, ward], score, label, PLAN)
    other = LinearModel.fit([age, ward], score, 1 - label, PLAN)
    assert other.logits([age, ward], score) == pytest.approx(-model.logits([age, ward], score), abs=1e-4)
