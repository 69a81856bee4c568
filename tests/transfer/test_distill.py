from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from isthmus.horizontal.metrics import auc
from isthmus.parties.errors import InputError
from isthmus.parties.table import Column
from isthmus.transfer import gate as gate_module
from isthmus.transfer.distill import distill, distill_score, soft_labels
from isthmus.transfer.gate import cross_validate, fit, folds
from isthmus.transfer.linear import LinearModel, LinearPlan
from isthmus.transfer.patients import Patients

PLAN = LinearPlan()


@pytest.fixture(autouse=True)
def one_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients are cut into folds once: repeats take time, and have a test of their own."""
    monkeypatch.setattr(gate_module, "_REPEATS", 1)


def sample(shared: int = 60, unknown: int = 0, further: int = 0, *, seed: int = 5, own: float = 1.0) -> Patients:
    """The source knows what the outcome depends on, an own column tells some of that; the last `unknown` of the shared
    patients have no outcome."""
    draw = np.random.default_rng(seed)
    rows = shared + further
    risk = draw.normal(size=rows)
    label = (draw.random(rows) < expit(2 * risk)).astype(float)
    label[shared - unknown : shared] = np.nan
    marker = own * risk + draw.normal(size=rows)
    return Patients((Column("marker", "number", marker),), risk[:shared, None], label)


@pytest.mark.parametrize("teacher", ["source", "transferred"])
def test_soft_labels_are_out_of_fold_where_the_outcome_is_known_and_the_teachers_where_not(teacher: str):
    patients = sample(40, 15, 10)
    found = soft_labels(patients, teacher, PLAN, 3)
    labelled = patients.without(np.arange(25, 40))
    assert found[:25].tolist() == cross_validate(labelled, [teacher], PLAN, 3)[teacher].tolist()
    of_unknown = patients.take(np.arange(25, 40))
    expected = fit(teacher, labelled, PLAN).probabilities(of_unknown.own, of_unknown.given)
    assert found[25:40] == pytest.approx(expected, abs=1e-12)
    assert found[40:].tolist() == patients.label[40:].tolist()  # further patients: hard labels


def test_the_student_is_fitted_to_the_soft_labels_by_own_columns_alone():
    patients = sample(40, 15, 10)
    student = distill(patients, "transferred", PLAN, seed=3)
    expected = LinearModel.fit(patients.own, None, soft_labels(patients, "transferred", PLAN, 3), PLAN)
    assert student.model.logits(patients.own).tolist() == expected.logits(patients.own).tolist()
    assert student.soft_labels == 40


def test_further_patients_without_an_outcome_teach_nothing():
    patients = sample(40, 0, 10)
    label = patients.label.copy()
    label[45:] = np.nan
    with_them = distill(Patients(patients.own, patients.given, label), "source", PLAN, seed=3)
    without = distill(patients.without(np.arange(45, 50)), "source", PLAN, seed=3)
    assert with_them.model.weights.tolist() == without.model.weights.tolist()


def test_a_student_learns_from_many_soft_labels_what_few_outcomes_do_not_show():
    # 12 outcomes, 600 soft labels
    patients = sample(600, 588)
    fresh = sample(2000, seed=99)
    student = distill(patients, "transferred", PLAN, seed=3)
    alone = fit("target", patients, PLAN)
    assert auc(fresh.label, student.model.logits(fresh.own)) >= auc(fresh.label, alone.logits(fresh.own))
    loss = [np.mean((model.probabilities(fresh.own) - fresh.label) ** 2) for model in (student.model, alone)]
    assert loss[0] < loss[1] - 0.01


def test_the_student_is_judged_on_patients_that_neither_it_nor_its_teacher_was_fitted_to():
    patients = sample(30, 6, 8)
    student = distill(patients, "transferred", PLAN, seed=3)
    assert student.validated is not None
    assert student.validated.label.tolist() == patients.label[:24].tolist()
    for test in folds(patients.label[:24], 3):
        train, tested = patients.without(test), patients.take(test)
        learnt = LinearModel.fit(train.own, None, soft_labels(train, "transferred", PLAN, 3), PLAN)
        for name, model in (("distilled", learnt), ("target", fit("target", train, PLAN))):
            expected = model.probabilities(tested.own)
            assert student.validated.predictions[name][test] == pytest.approx(expected, abs=1e-12)


def test_names_that_give_each_patient_away_do_not_make_a_student_look_good():
    names = Column("name", "category", np.array([f"p{place}" for place in range(30)], dtype=object))
    patients = Patients((names,), sample(30).given, np.tile([0.0, 1, 1], 10))
    student = distill(patients, "source", PLAN, seed=3)
    assert student.fidelity < 0.05
    assert student.validated is not None
    assert student.validated.predictions["distilled"].std() < 0.05


def test_fidelity_is_one_where_own_columns_say_all_and_nothing_where_they_say_nothing():
    draw = np.random.default_rng(4)
    score = draw.normal(size=400)
    same = Patients((Column("marker", "number", score),), score[:, None], np.full(400, np.nan))
    noise = Patients((Column("marker", "number", draw.normal(size=400)),), score[:, None], np.full(400, np.nan))
    loose = LinearPlan(c=100.0)
    assert distill_score(same, loose, seed=1, party="lab", source="insurer").fidelity == pytest.approx(1, abs=1e-3)
    assert distill_score(noise, loose, seed=1, party="lab", source="insurer").fidelity < 0.02


def test_without_any_outcome_the_student_repeats_the_score():
    # Two wards: the source's probabilities are .1 and .3 in one, .9 in the other.
    ward = Column("ward", "category", np.array(["a", "a", "b", "b"], dtype=object))
    patients = Patients((ward,), logit(np.array([[0.1], [0.3], [0.9], [0.9]])), np.full(4, np.nan))
    student = distill_score(patients, LinearPlan(c=1e5), seed=1, party="lab", source="insurer")
    assert student.model.probabilities((ward,)) == pytest.approx([0.2, 0.2, 0.9, 0.9], abs=1e-3)
    assert student.validated is None
    assert student.soft_labels == 4


def test_the_target_alone_is_no_teacher():
    with pytest.raises(ValueError, match="alone already"):
        distill(sample(), "target", PLAN, seed=3)


@pytest.mark.parametrize("shared", [0, 1])
def test_one_shared_patient_teaches_nothing(shared: int):
    with pytest.raises(InputError, match=r"data\.few_rows"):
        distill_score(sample(20).take(np.arange(shared)), PLAN, seed=1, party="lab", source="insurer")
