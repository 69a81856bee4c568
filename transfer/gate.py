"""Do no harm: whether what a source gave is kept is decided by cross-validation on the shared patients.

Candidates are the target alone (its own columns, all its labelled patients, shared or not: the honest baseline), the
source alone (what it gave, and nothing else) and the transferred model (both, of the same patients as the target alone:
of those that are not shared what was given is missing). All predict the same patients, the shared ones with a known
outcome, each by models that were fitted without that patient. The best is kept; a tie goes to the target alone.

The best is the one with the smallest log loss. Users ask for the AUC, and it is told beside, but with few patients it
is a coarse judge: it moves in steps of a pair and does not see by how much a pair is right. Measured on SUPPORT2
(sixteen seeds, 40 and 200 shared patients, score and embedding), the mean test AUC lost by the choice was .011 by log
loss and .019 by AUC; the median was 0 and the largest loss .122 by either. With 800 shared patients neither lost any.
Of a source that gives noise, or little, neither chose clearly better. Seven criteria were compared on these same seeds.

What was chosen because it looked best looks better than it is (Cawley & Talbot 2010). So the gate itself is judged by
nested cross-validation (Varma & Simon 2006): in each outer fold it chooses without the patients that its choice then
predicts. What the source gave must be out of fold as well, or its candidates look too good; `pretrain` sees to that.

Nothing here leaves the target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.model_selection import StratifiedKFold

from ..horizontal.metrics import MetricValue, auc, auc_gain, auc_interval, log_loss
from ..parties.errors import InputError
from .linear import LinearModel, LinearPlan
from .patients import Floats, Indices, Patients

Candidate = Literal["target", "source", "transferred"]
CANDIDATES: tuple[Candidate, ...] = ("target", "source", "transferred")

LEAST = 3  # of each outcome: three folds, whose two thirds can be halved again, each half with both outcomes
FOLDS = 5
_REPEATS, _JUDGED_ROWS, _FITTED_ROWS = 5, 2_000, 20_000  # the choice is steady, and takes seconds


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several predictions for the same patients: probabilities, each ``(rows,)``; `label` is 0 and 1, ``(rows,)``.

    Those of the target alone are among them, as `target`. Where two are equally good the earlier one is chosen.
    """

    label: Floats
    predictions: Mapping[str, Floats]

    @property
    def chosen(self) -> str:
        """The best of them, by log loss."""
        return min(self.predictions, key=self.log_loss)

    def log_loss(self, name: str) -> float:
        """Mean cross entropy, by which is chosen."""
        return log_loss(self.label, self.predictions[name])

    def auc(self, name: str) -> MetricValue:
        """AUC with its 95 % interval."""
        found = self.predictions[name]
        return MetricValue("auc", auc(self.label, found), *auc_interval(self.label, found))

    def gain(self, name: str) -> MetricValue:
        """AUC less that of the target alone, with its 95 % interval, paired by patient: below 0 it does harm."""
        return auc_gain(self.label, self.predictions[name], self.predictions["target"])

    def choose_on(self, rows: Indices, further: Mapping[str, Floats]) -> Comparison:
        """The patients at the positions `rows` only, with `further` predictions of them, each ``(len(rows),)``."""
        kept = {name: found[rows] for name, found in self.predictions.items()}
        return Comparison(self.label[rows], {**kept, **further})


@dataclass(frozen=True, eq=False)
class Gate:
    """What the gate found.

    `rows` are positions, among the shared patients, of those that are judged. `validated` compares the candidates on
    them; `nested` compares the `target` alone with what the gate would have `chosen` without each patient, and
    `choices` says what that was in each outer fold.
    """

    rows: Indices
    validated: Comparison
    nested: Comparison
    choices: tuple[str, ...]


def judge(patients: Patients, plan: LinearPlan, *, seed: int, party: str) -> Gate:
    """Compare the candidates on the shared patients whose outcome is known; `seed` is the job's and orders folds.

    Raises `InputError` ``transfer.few_labels``.
    """
    check_labels(patients, party)
    known = patients.labelled
    label = known.label[: known.shared]
    validated = Comparison(label, cross_validate(known, CANDIDATES, plan, seed))
    alone, chosen, choices = np.zeros(len(label)), np.zeros(len(label)), []
    for test in folds(label, seed):
        train, tested = known.without(test), known.take(test)
        inner = Comparison(train.label[: train.shared], cross_validate(train, CANDIDATES, plan, seed))
        choice = inner.chosen
        for name, found in (("target", alone), (choice, chosen)):
            found[test] = fit(name, train, plan).probabilities(tested.own, tested.given)
        choices.append(choice)
    nested = Comparison(label, {"target": alone, "chosen": chosen})
    return Gate(patients.judged, validated, nested, tuple(choices))


def check_labels(patients: Patients, party: str) -> None:
    """Raise `InputError` ``transfer.few_labels`` unless `LEAST` shared patients of each outcome are there."""
    label = patients.label[patients.judged]
    if min((label == 1).sum(), (label == 0).sum()) < LEAST:
        raise InputError("transfer.few_labels", party=party, allowed=LEAST)


def fit(candidate: str, patients: Patients, plan: LinearPlan) -> LinearModel:
    """Fit one of `CANDIDATES` to those of its patients whose outcome is known; raises `ValueError` for another name."""
    known = patients.labelled
    if candidate == "target":
        return LinearModel.fit(known.own, None, known.label, plan)
    if candidate == "source":
        return LinearModel.fit((), known.given, known.label[: known.shared], plan)
    if candidate == "transferred":
        return LinearModel.fit(known.own, known.given, known.label, plan)
    raise ValueError(f"{candidate!r} is no candidate")


def cross_validate(patients: Patients, candidates: Sequence[str], plan: LinearPlan, seed: int) -> dict[str, Floats]:
    """Probabilities of the shared patients by models fitted without them, ``(shared,)`` for each candidate.

    All are labelled. Few patients are cut into folds several times over, and the probabilities averaged: a single cut
    would decide by luck.
    """
    label = patients.label[: patients.shared]
    repeats = max(1, min(_REPEATS, _JUDGED_ROWS // len(label), _FITTED_ROWS // len(patients.label)))
    found = {name: np.zeros(len(label)) for name in candidates}
    for repeat in range(repeats):
        for test in folds(label, seed, repeat):
            train, tested = patients.without(test), patients.take(test)
            for name in candidates:
                probabilities = fit(name, train, plan).probabilities(tested.own, tested.given)
                found[name][test] += probabilities / repeats
    return found


def folds(label: Floats, seed: int, repeat: int = 0) -> Iterator[Indices]:
    """Positions of the test rows of each fold, stratified by `label`, 0 and 1 ``(rows,)``; both occur twice at least.

    Raises `ValueError` where they do not.
    """
    count = int(min(FOLDS, (label == 1).sum(), (label == 0).sum()))
    for _, test in StratifiedKFold(count, shuffle=True, random_state=order(seed, repeat)).split(label, label):
        yield test


def order(seed: int, repeat: int = 0) -> np.random.RandomState:
    """What scikit-learn draws an order of rows from; its own seeds are shorter than a job's."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, repeat])))
