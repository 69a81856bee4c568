from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from isthmus.horizontal.metrics import auc, auc_gain, auc_interval
from isthmus.parties.errors import InputError
from isthmus.parties.table import Column
from isthmus.transfer import gate as gate_module
from isthmus.transfer.gate import (
    CANDIDATES,
    LEAST,
    Comparison,
    check_labels,
    cross_validate,
    fit,
    folds,
    judge,
)
from isthmus.transfer.linear import LinearModel, LinearPlan
from isthmus.transfer.patients import Patients

PLAN = LinearPlan()


@pytest.fixture(autouse=True)
def one_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients are cut into folds once: repeats take time, and have a test of their own."""
    monkeypatch.setattr(gate_module, "_REPEATS", 1)


def sample(
    shared: int = 60, further: int = 0, *, own: float = 1.0, given: float = 1.0, width: int = 1, seed: int = 3
) -> Patients:
    """Patients whose outcome depends on an own column and on what is given, as strongly as is said."""
    draw = np.random.default_rng(seed)
    rows = shared + further
    marker, told = draw.normal(size=rows), draw.normal(size=(rows, width))
    label = (draw.random(rows) < 1 / (1 + np.exp(-own * marker - given * told[:, 0]))).astype(float)
    return Patients((Column("marker", "number", marker),), told[:shared], label)


def known_by_name(shared: int, further: int = 0) -> Patients:
    """Patients whose columns name each of them, and tell nothing else."""
    names = Column("name", "category", np.array([f"p{place}" for place in range(shared + further)], dtype=object))
    return Patients((names,), np.zeros((shared, 1)), np.tile([0.0, 1, 1], shared + further)[: shared + further])


# --- candidates ------------------------------------------------------------------------------------------------------


def test_the_target_alone_learns_from_all_its_labelled_patients():
    patients = sample(40, 25)
    expected = LinearModel.fit(patients.own, None, patients.label, PLAN)
    assert fit("target", patients, PLAN).weights.tolist() == expected.weights.tolist()


def test_the_transferred_model_learns_from_the_same_patients_by_both_of_which_some_are_average_in_what_is_given():
    patients = sample(40, 25)
    marker, given = patients.own[0].values, patients.given[:, 0]
    matrix = np.zeros((65, 2))
    matrix[:, 0] = (marker - marker.mean()) / marker.std()
    matrix[:40, 1] = (given - given.mean()) / given.std() * np.sqrt(0.5 / 0.05)
    direct = LogisticRegression(C=0.05, tol=1e-8).fit(matrix, patients.label)
    assert fit("transferred", patients, PLAN).weights == pytest.approx(direct.coef_[0], abs=1e-4)


def test_the_source_alone_learns_from_what_it_gave_and_nothing_else():
    patients = sample(40, 25)
    expected = LinearModel.fit([], patients.given, patients.label[:40], PLAN)
    assert fit("source", patients, PLAN).weights.tolist() == expected.weights.tolist()


def test_patients_whose_outcome_is_not_known_change_nothing():
    patients = sample(24, 6)
    unknown = np.arange(0, 30, 3)
    label = patients.label.copy()
    label[unknown] = np.nan
    with_them, without = Patients(patients.own, patients.given, label), patients.without(unknown)
    for name in CANDIDATES:
        assert fit(name, with_them, PLAN).weights.tolist() == fit(name, without, PLAN).weights.tolist()
    found, expected = (judge(each, PLAN, seed=1, party="lab") for each in (with_them, without))
    assert found.rows.tolist() == [place for place in range(24) if place % 3]
    for name in CANDIDATES:
        assert found.validated.predictions[name].tolist() == expected.validated.predictions[name].tolist()


# --- folds and cross-validation --------------------------------------------------------------------------------------


def test_each_patient_is_tested_once_and_each_fold_has_both_outcomes():
    label = np.array([0.0] * 20 + [1.0] * 4)
    found = list(folds(label, 2**63 - 1))
    assert len(found) == 4  # as many as the rarer outcome has patients
    assert sorted(np.concatenate(found).tolist()) == list(range(24))
    assert all(label[test].sum() == 1 for test in found)


def test_the_seed_orders_the_folds_and_each_repeat_has_others():
    label = np.tile([0.0, 1], 20)
    cuts = [[test.tolist() for test in folds(label, seed, repeat)] for seed, repeat in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert cuts[0] == cuts[1]
    assert cuts[0] != cuts[2] != cuts[3] != cuts[0]


def test_a_patient_is_predicted_by_models_that_were_fitted_without_it():
    # Fitted with it, each patient's own level would give the label away: an AUC of 1.
    patients = known_by_name(30)
    assert auc(patients.label, fit("target", patients, PLAN).probabilities(patients.own)) == 1
    assert cross_validate(patients, ["target"], PLAN, 1)["target"] == pytest.approx(np.full(30, 2 / 3), abs=1e-3)


def test_cross_validated_probabilities_are_the_mean_over_the_repeats(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate_module, "_REPEATS", 5)
    patients = sample(500, 20)  # four times five folds: 2,000 rows are judged
    expected = np.zeros(500)
    for repeat in range(4):
        for test in folds(patients.label[:500], 5, repeat):
            tested = patients.take(test)
            model = fit("transferred", patients.without(test), PLAN)
            expected[test] += model.probabilities(tested.own, tested.given) / 4
    assert cross_validate(patients, ["transferred"], PLAN, 5)["transferred"] == pytest.approx(expected, abs=1e-12)


# --- comparison ------------------------------------------------------------------------------------------------------

LABEL = np.array([0.0, 0, 1, 1])
GOOD, FAIR, BAD = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.9, 0.8, 0.2, 0.1])


def test_the_choice_is_by_log_loss_which_sees_how_sure_a_prediction_is():
    # The same order, so the same AUC: -(ln .9 + ln .8) / 2 against -(ln .6 + ln .51) / 2
    unsure = np.array([0.4, 0.49, 0.51, 0.6])
    found = Comparison(LABEL, {"target": unsure, "source": GOOD})
    assert found.auc("target").value == found.auc("source").value == 1
    assert found.log_loss("source") == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
    assert found.chosen == "source"


def test_what_is_gained_and_what_is_harmed_is_told():
    found = Comparison(LABEL, {"target": FAIR, "source": BAD, "transferred": GOOD})
    assert found.chosen == "transferred"
    assert (found.auc("target").value, found.auc("transferred").value) == (0.75, 1)
    assert (found.gain("transferred").value, found.gain("source").value) == (0.25, -0.75)


def test_intervals_are_over_patients_and_paired():
    patients = sample(80)
    label = patients.label
    found = Comparison(label, cross_validate(patients, CANDIDATES, PLAN, 1))
    source, target = found.predictions["source"], found.predictions["target"]
    assert found.auc("source")[2:] == auc_interval(label, source)
    assert found.gain("source") == auc_gain(label, source, target)


def test_a_tie_goes_to_the_target_alone():
    assert Comparison(LABEL, {"target": GOOD, "source": GOOD, "transferred": GOOD}).chosen == "target"
    assert Comparison(LABEL, {"target": FAIR, "source": GOOD, "transferred": GOOD}).chosen == "source"


def test_further_candidates_are_compared_on_the_patients_that_they_predict():
    rows = np.array([1, 2])
    found = Comparison(LABEL, {"target": GOOD, "source": FAIR}).choose_on(rows, {"split": np.array([0.3, 0.6])})
    assert found.label.tolist() == [0, 1]
    assert found.predictions["source"].tolist() == [0.4, 0.35]
    assert found.chosen == "target"
    worse = Comparison(LABEL, {"target": FAIR}).choose_on(rows, {"split": np.array([0.3, 0.6])})
    assert worse.chosen == "split"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    label=st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=20).filter(lambda found: len(set(found)) == 2),
    data=st.data(),
)
def test_nothing_that_does_worse_in_cross_validation_is_ever_chosen(label: list[float], data: st.DataObject):
    probabilities = st.lists(st.floats(0, 1), min_size=len(label), max_size=len(label))
    predictions = {name: np.array(data.draw(probabilities)) for name in CANDIDATES}
    found = Comparison(np.array(label), predictions)
    assert found.log_loss(found.chosen) == min(found.log_loss(name) for name in CANDIDATES)


# --- the gate --------------------------------------------------------------------------------------------------------


def test_a_source_that_knows_more_is_taken():
    gate = judge(sample(own=0.3, given=2), PLAN, seed=7, party="lab")
    assert gate.validated.chosen in ("source", "transferred")
    assert gate.nested.gain("chosen").value > 0


def test_noise_leaves_the_target_alone_and_its_harm_is_told():
    gate = judge(sample(own=2, given=0, width=32), PLAN, seed=7, party="lab")
    assert gate.validated.chosen == "target"
    assert gate.validated.gain("transferred").value < 0
    assert gate.validated.gain("source").high < 0  # type: ignore[operator]


def test_the_choice_itself_is_judged_on_patients_that_it_has_not_seen():
    patients = sample(20, 10, own=0.5, given=0.5)
    gate = judge(patients, PLAN, seed=7, party="lab")
    tests = list(folds(patients.label[:20], 7))
    assert len(gate.choices) == len(tests) == 5
    for test, choice in zip(tests, gate.choices, strict=True):
        train, tested = patients.without(test), patients.take(test)
        inner = Comparison(train.label[: train.shared], cross_validate(train, CANDIDATES, PLAN, 7))
        assert choice == inner.chosen
        for name, kept in (("target", "target"), ("chosen", choice)):
            expected = fit(kept, train, PLAN).probabilities(tested.own, tested.given)
            assert gate.nested.predictions[name][test].tolist() == expected.tolist()


def test_the_same_seed_gives_the_same_gate_to_the_bit():
    patients = known_by_name(9, 3)
    one, two = (judge(patients, PLAN, seed=2**63 - 1, party="lab") for _ in range(2))
    for name in CANDIDATES:
        assert one.validated.predictions[name].tobytes() == two.validated.predictions[name].tobytes()
    assert one.nested.predictions["chosen"].tobytes() == two.nested.predictions["chosen"].tobytes()


@pytest.mark.parametrize("further", [0, 30])
def test_three_of_each_outcome_are_enough(further: int):
    patients = known_by_name(9, further)
    gate = judge(patients, PLAN, seed=1, party="lab")
    assert gate.validated.chosen in CANDIDATES
    assert len(gate.choices) == LEAST


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_too_few_of_an_outcome_among_the_shared_patients_are_said_so(outcome: float):
    patients = sample(10, 30)
    label = patients.label.copy()
    label[:10] = 1 - outcome
    label[:2] = outcome
    label[2] = np.nan
    few = Patients(patients.own, patients.given, label)
    with pytest.raises(InputError) as caught:
        judge(few, PLAN, seed=1, party="lab")
    assert caught.value.code == "transfer.few_labels"
    assert caught.value.facts == {"party": "lab", "allowed": LEAST}
    label[2] = outcome
    check_labels(few, "lab")


def test_nobody_shared_is_too_few():
    with pytest.raises(InputError, match=r"transfer\.few_labels"):
        check_labels(sample(0, 20), "lab")
