"""What `baselines` computes: the same patients, the same split, learnt from in other company.

Who learns, on what: each party alone (a passive one is lent the label), the active party on all its rows (those it
shares with nobody are added to what it learns from), and everything pooled. Three kinds of model each:

- the job's own model by `train_central`, with the job's own settings and the parties' own private seeds: pooled, that
  is what the parties have trained together, number for number;
- logistic regression on standardised numbers, one-hot categories and missing indicators, its penalty chosen on the
  validation patients;
- gradient boosting, which takes missing values and categories as they are, its leaves and rounds chosen there too.

The demo's own setting of the network was chosen once, for all of them: of six (learning rate, dropout, weight decay)
the one with the best validation AUC, averaged over lab, insurer, pooled and four splits. They hardly differ (.786 to
.789).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ....horizontal import metrics
from ....parties.checkpoint import read_tensors
from ....parties.errors import InputError
from ....parties.home import PartyHome
from ....parties.state import SavedAlignment, State
from ....parties.store import Store
from ....parties.table import Column
from ....vertical import Parts, split_rows, train_central
from ...demo import true_persons
from .baselines import Baselines, Gain, Line, Linkage, Row, Score, Told
from .job import VerticalJob
from .learning import SCORES_FILE, plan_of

PENALTIES = (0.01, 0.1, 1.0)  # scikit-learn's C
LEAVES, ROUNDS, RATE = (4, 8, 16), 200, 0.05

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Contender:
    """Who learns, from which columns and rows; the rows it is judged on are everybody's."""

    kind: Any  # of `Row.kind`
    party: str | None
    columns: dict[str, list[Column]]  # by party
    label: NDArray[np.float32]
    parts: Parts

    @property
    def name(self) -> str:
        """For a line of progress."""
        return {"alone": f"{self.party} alone", "all_rows": f"{self.party} on all its rows"}.get(self.kind, "pooled")

    @property
    def flat(self) -> list[Column]:
        """All columns side by side."""
        return [column for columns in self.columns.values() for column in columns]


def compare(job: VerticalJob, homes: Sequence[PartyHome], run: str, say: Told) -> Baselines:
    """Train and judge all contenders of one finished run.

    Raises `InputError` ``run.unknown`` where the parties have no common alignment of it.
    """
    began = time.monotonic()
    torch.set_num_threads(1)
    shared = {home.name: _alignment(home, run) for home in homes}
    if len({alignment.digest for alignment in shared.values()}) > 1:
        raise InputError("run.unknown", run=run)
    silent = tuple(home.name for home in homes if "metrics" not in home.config.policy.publish)
    counts = all("counts" in home.config.policy.publish for home in homes)
    curves = all("curves" in home.config.policy.publish for home in homes)
    linkage = _linkage(homes, shared) if counts else None
    if silent:  # what a policy withholds is not told by this way either
        return Baselines(linkage=linkage, withheld_by=silent, seconds=time.monotonic() - began)
    contenders = list(_contenders(job, homes, shared))
    seeds = {home.name: _private_seed(home, run) for home in homes}
    rows, scores = [], {}
    for done, contender in enumerate(contenders):
        say(done, len(contenders), contender.name)
        label, parts = contender.label, contender.parts
        network = _network(job, contender, seeds)
        scores[contender.name] = network
        truth = label[parts.test]
        roc = None
        if contender.kind == "alone" and curves:
            x, y = metrics.roc_curve(truth, network)
            roc = Line(x=tuple(x.tolist()), y=tuple(y.tolist()))
        rows.append(
            Row(
                kind=contender.kind,
                party=contender.party,
                train_rows=len(parts.train) if counts else None,
                columns=len(contender.flat) if counts else None,
                network=_score(truth, network),
                logistic=_score(truth, _logistic(contender)),
                boosting=_score(truth, _boosting(contender)),
                roc=roc,
            )
        )
    say(len(contenders), len(contenders), "")
    test = contenders[0].parts.test
    alone = [row for row in rows if row.kind == "alone"]
    better = max(alone, key=lambda row: row.network.auc)
    active = next(home for home in homes if home.name == job.active.name)
    gain = _gain(active, run, contenders[0], better.party or "", scores[f"{better.party} alone"])
    return Baselines(
        test_rows=len(test) if counts else None,
        rows=tuple(rows),
        gain=gain,
        linkage=linkage,
        seconds=time.monotonic() - began,
    )


# --- below: rows -----------------------------------------------------------------------------------------------------


def _alignment(home: PartyHome, run: str) -> SavedAlignment:
    alignment = State(home).load_alignment(run)
    if alignment is None:
        raise InputError("run.unknown", run=run)
    return alignment


def _private_seed(home: PartyHome, run: str) -> int:
    seed = State(home).private_seed(run)
    if seed is None:
        raise InputError("run.unknown", run=run)
    return seed


def _contenders(job: VerticalJob, homes: Sequence[PartyHome], shared: dict[str, SavedAlignment]) -> Iterator[Contender]:
    """Every contender: the passive parties, the active one, the active one with all its rows, and all of them."""
    active = job.active
    assert active.label is not None
    columns: dict[str, list[Column]] = {}
    for home in sorted(homes, key=lambda home: home.name != active.name):
        names = home.config.policy.check(job.terms(home.name)).columns  # as in the run itself
        row_ids = np.array(shared[home.name].row_ids, dtype=object)
        store = Store(home, job.party(home.name).dataset)
        columns[home.name] = store.columns(names, row_ids)
        if home.name == active.name:
            label = store.label(active.label, row_ids)
            unshared = np.array(sorted(set(store.row_ids().tolist()) - set(row_ids.tolist())), dtype=object)
            everybody = np.concatenate([row_ids, unshared])
            all_columns, all_labels = store.columns(names, everybody), store.label(active.label, everybody)
    training, digest = job.training, shared[active.name].digest
    parts = split_rows(len(label), training.validation_share, training.test_share, training.seed, digest)
    for party, own in sorted(columns.items(), key=lambda item: item[0] == active.name):
        if own:  # an active party may bring its label alone
            yield Contender("alone", party, {party: own}, label, parts)
    if columns[active.name] and len(everybody) > len(label):
        added = np.arange(len(label), len(everybody))
        more = Parts(np.concatenate([parts.train, added]), parts.validation, parts.test)
        yield Contender("all_rows", active.name, {active.name: all_columns}, all_labels, more)
    yield Contender("pooled", None, columns, label, parts)


# --- below: models. Each gives scores of the test rows, in their order -----------------------------------------------


def _network(job: VerticalJob, contender: Contender, seeds: dict[str, int]) -> Floats:
    active = contender.party or job.active.name
    model = train_central(
        contender.columns,
        contender.label,
        plan_of(job),
        active=active,
        private_seeds=seeds,
        parts=contender.parts,
    )
    return model.scores(contender.parts.test)


def _logistic(contender: Contender) -> Floats:
    features = _one_hot(contender.flat, contender.parts.train)
    label, parts = contender.label, contender.parts
    candidates = []
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=1_000).fit(features[parts.train], label[parts.train])
        reached = metrics.auc(label[parts.validation], model.decision_function(features[parts.validation]))
        candidates.append((reached, penalty, model))
    scores: Floats = max(candidates, key=lambda c: (c[0], -c[1]))[2].predict_proba(features[parts.test])[:, 1]
    return scores


def _boosting(contender: Contender) -> Floats:
    features, is_category = _ordinal(contender.flat, contender.parts.train)
    label, parts = contender.label, contender.parts
    candidates = []
    for leaves in LEAVES:
        model = HistGradientBoostingClassifier(
            learning_rate=RATE,
            max_iter=ROUNDS,
            max_leaf_nodes=leaves,
            l2_regularization=1.0,
            categorical_features=is_category,
            early_stopping=False,  # it would hold out rows of its own; the rounds are chosen on everybody's
            random_state=0,
        ).fit(features[parts.train], label[parts.train])
        for rounds, staged in enumerate(model.staged_predict_proba(features[parts.validation]), 1):
            if rounds % 10 == 0:
                candidates.append((metrics.auc(label[parts.validation], staged[:, 1]), -rounds, -leaves, model))
    _, rounds, _, model = max(candidates, key=lambda c: c[:3])
    stages = model.staged_predict_proba(features[parts.test])
    scores: Floats = next(staged for at, staged in enumerate(stages, 1) if at == -rounds)[:, 1]
    return scores


def _one_hot(columns: Sequence[Column], train: Indices) -> Floats:
    """Standardised numbers, one column a category, and one for what is missing; learnt from the training rows."""
    found = []
    for column in columns:
        if column.kind == "number":
            missing = np.isnan(column.values)
            known = column.values[train][~missing[train]]
            mean, spread = (known.mean(), known.std() or 1.0) if len(known) else (0.0, 1.0)
            found.append(np.where(missing, 0.0, (column.values - mean) / spread))
        else:
            missing = np.array([value is None for value in column.values])
            found += [column.values == category for category in _categories(column, train)]
        found.append(missing)
    return np.column_stack(found).astype(np.float64)


def _ordinal(columns: Sequence[Column], train: Indices) -> tuple[Floats, NDArray[np.bool_]]:
    """Numbers as they are and categories as codes, NaN where missing or never seen in training."""
    found = []
    for column in columns:
        if column.kind == "number":
            found.append(column.values)
        else:
            codes = {category: code for code, category in enumerate(_categories(column, train)[:255])}
            found.append(np.array([codes.get(value, np.nan) for value in column.values]))
    return np.column_stack(found), np.array([column.kind == "category" for column in columns])


def _categories(column: Column, train: Indices) -> list[str]:
    return sorted({value for value in column.values[train] if value is not None})


# --- below: judging --------------------------------------------------------------------------------------------------


def _linkage(homes: Sequence[PartyHome], shared: dict[str, SavedAlignment]) -> Linkage | None:
    """Compare who was put together with who belongs together, where homes know it."""
    truths = {home.name: true_persons(home) for home in homes}
    if any(truth is None for truth in truths.values()):
        return None
    persons = [[(truths[name] or {})[row] for row in alignment.row_ids] for name, alignment in shared.items()]
    right = sum(len(set(together)) == 1 for together in zip(*persons, strict=True))
    common = set.intersection(*(set((truth or {}).values()) for truth in truths.values()))
    found = len(persons[0])
    return Linkage(precision=right / found, recall=right / len(common), shared=len(common), found=found)


def _score(label: NDArray[np.float32], scores: Floats) -> Score:
    low, high = metrics.auc_interval(label, scores)
    return Score(auc=metrics.auc(label, scores), low=low, high=high)


def _gain(active: PartyHome, run: str, contender: Contender, over: str, alone: Floats) -> Gain | None:
    """The joint model's AUC less a party's, if the joint scores are there: the active party's vault keeps them."""
    path: Path = active.run_folder(run) / SCORES_FILE
    if not path.is_file():
        return None
    arrays, _ = read_tensors(path)
    test = contender.parts.test
    place = {int(row): at for at, row in enumerate(arrays["rows"])}
    if set(place) != set(test.tolist()):
        return None  # scores of another split
    joint = arrays["score"][[place[int(row)] for row in test]].astype(np.float64)
    label = contender.label[test]
    _, value, low, high = metrics.auc_gain(label, joint, alone)
    return Gain.model_validate({"over": over, "value": value, "low": low, "high": high})
