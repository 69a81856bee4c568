"""A student that the target runs alone: it needs its own columns only, so also patients whom the source does not know.

The teacher is the model that needs the source (Hinton, Vinyals & Dean 2015). It says of every shared patient, labelled
or not, how likely the outcome is; the student learns these soft labels, and the hard ones of the target's further
patients. A labelled patient's soft label comes from a teacher that was fitted without that patient: else it would
mostly repeat the label. Without any label the source's score is the teacher.

Nothing here leaves the target. The student carries what the source's model says about the shared patients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit
from sklearn.model_selection import KFold

from ..horizontal.metrics import r2
from ..parties.errors import InputError
from .gate import FOLDS, Comparison, cross_validate, fit, folds, order
from .linear import LinearModel, LinearPlan
from .patients import Floats, Patients

_LEAST = 1e-6  # probability that a teacher without labels leaves to what it holds for impossible


@dataclass(frozen=True, eq=False)
class Student:
    """A distilled model, which uses own columns only, and how good it is.

    It learnt from `soft_labels` shared patients. `fidelity` is the share of the variance of the teacher's probabilities
    that it tells (R²), for patients that neither was fitted to; `validated` compares `distilled` and `target` alone,
    both cross-validated on the shared patients whose outcome is known, and is None where none is.
    """

    model: LinearModel
    soft_labels: int
    fidelity: float
    validated: Comparison | None


def distill(patients: Patients, teacher: str, plan: LinearPlan, *, seed: int) -> Student:
    """Distil `source` or `transferred`, whichever the gate chose; there are enough labels, or it could not have.

    What is compared is cross-validated with teacher and soft labels made anew without the patients that are judged.
    Only the choice of the teacher has seen them.
    """
    if teacher == "target":
        raise ValueError("the target alone is no teacher: it runs alone already")
    judged = patients.judged
    label = patients.label[judged]
    student, alone = np.zeros(len(judged)), np.zeros(len(judged))
    taught = np.zeros(len(judged))
    for test in folds(label, seed):
        train, tested = patients.without(judged[test]), patients.take(judged[test])
        student[test] = _learn(train, teacher, plan, seed).probabilities(tested.own)
        alone[test] = fit("target", train, plan).probabilities(tested.own)
        taught[test] = fit(teacher, train, plan).probabilities(tested.own, tested.given)
    model = _learn(patients, teacher, plan, seed)
    return Student(
        model, patients.shared, r2(taught, student), Comparison(label, {"target": alone, "distilled": student})
    )


def distill_score(patients: Patients, plan: LinearPlan, *, seed: int, party: str, source: str) -> Student:
    """Distil the source's score, a logit ``(shared, 1)``, without any label.

    Raises `InputError` ``data.few_rows`` where there is nothing to cross-validate, and ``embedding.constant``, by the
    name of `source`, where all scores are as good as the same.
    """
    if patients.shared < 2:
        raise InputError("data.few_rows", party=party, count=patients.shared, allowed=2)
    shared = patients.of_shared
    taught: Floats = np.clip(expit(shared.given[:, 0]), _LEAST, 1 - _LEAST)  # a saturated score is no certainty
    if np.ptp(taught) == 0:
        raise InputError("embedding.constant", party=source)
    student = np.zeros(len(taught))
    cuts = KFold(min(FOLDS, len(taught)), shuffle=True, random_state=order(seed))
    for train, test in cuts.split(taught):
        model = LinearModel.fit(shared.take(train).own, None, taught[train], plan)
        student[test] = model.probabilities(shared.take(test).own)
    model = LinearModel.fit(shared.own, None, taught, plan)
    return Student(model, patients.shared, r2(taught, student), None)


def soft_labels(patients: Patients, teacher: str, plan: LinearPlan, seed: int) -> Floats:
    """What the student learns, ``(rows,)``: the teacher's probabilities for the shared patients, the outcomes of the
    further ones (NaN where they are not known)."""
    label, judged = patients.label.copy(), patients.judged
    label[: patients.shared] = fit(teacher, patients, plan).probabilities(patients.of_shared.own, patients.given)
    label[judged] = cross_validate(patients.labelled, [teacher], plan, seed)[teacher]
    return label


def _learn(patients: Patients, teacher: str, plan: LinearPlan, seed: int) -> LinearModel:
    return fit("target", replace(patients, label=soft_labels(patients, teacher, plan, seed)), plan)
