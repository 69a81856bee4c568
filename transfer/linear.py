"""What a target fits: logistic regression with an L2 penalty on its own columns beside what a source gave.

With few labelled patients a linear model is all that can be fitted, and the penalty matters more than its form. The
source's score is one number that was learnt from many patients, so it is trusted more than a column of one's own: it
has a penalty of its own in the same fit. Penalising a weight C times less is the same as multiplying its standardised
input by √(c_score / c), which leaves one ordinary logistic regression to fit (Zou & Hastie 2005 rescale inputs alike).

Labels may be soft: probabilities. Then each patient counts twice, with and without the outcome, weighted by them, which
minimises the cross entropy to them (Hinton, Vinyals & Dean 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from ..horizontal.tabular import TabularEncoder
from ..parties.network.message import Array
from ..parties.table import Column
from .patients import Floats

_TOLERANCE, _MOST_STEPS = 1e-6, 2000  # of the largest gradient, in L-BFGS
_THREADS = ThreadpoolController()  # of the mathematics that is imported above


@dataclass(frozen=True)
class LinearPlan:
    """The strength of the penalties, as scikit-learn counts: smaller is smoother.

    `c` is for one's own columns and an embedding, `c_score` for a score, which is one number.
    """

    c: float = 0.05
    c_score: float = 0.5


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted model. Without own columns its encoder is empty, without anything given `mean` and `scale` are.

    What was given enters as ``(given - mean) / scale``, both ``(width,)``. `weights` ``(own width + width,)`` are of
    the encoded columns, then of that.
    """

    encoder: TabularEncoder
    mean: Floats
    scale: Floats
    weights: Floats
    bias: float

    @classmethod
    def fit(cls, own: Sequence[Column], given: Floats | None, label: Floats, plan: LinearPlan) -> LinearModel:
        """Fit to `own` columns ``(rows,)`` and what was `given` ``(shared, width)``, of the first rows; either may be
        absent.

        Of rows that follow nothing was given: to the model they are average in it, as a missing number is. So a
        target's further patients still teach it what its own columns mean.
        `label` ``(rows,)`` is 0 and 1, or probabilities. Raises `ValueError` where it says the same, 0 or 1, of all.
        """
        encoder = TabularEncoder.fit(own, np.arange(len(label)), embed=False)
        told = np.zeros((len(label), 0)) if given is None else given
        mean, scale = _standard(told)
        if told.shape[1] == 1:
            scale = scale / np.sqrt(plan.c_score / plan.c)
        inputs = _inputs(encoder, mean, scale, own, told, len(label))
        positive, negative = label > 0, label < 1
        with _THREADS.limit(limits=1):  # the matrices are small: more threads wait for each other
            fitted = LogisticRegression(C=plan.c, tol=_TOLERANCE, max_iter=_MOST_STEPS).fit(
                np.concatenate([inputs[positive], inputs[negative]]),
                np.repeat([1, 0], [positive.sum(), negative.sum()]),
                sample_weight=np.concatenate([label[positive], 1 - label[negative]]),
            )
        return cls(encoder, mean, scale, fitted.coef_[0], float(fitted.intercept_[0]))

    def logits(self, own: Sequence[Column], given: Floats | None = None) -> Floats:
        """Log odds of patients, ``(rows,)``, by columns with the fitted names and what was given ``(rows, width)``.

        Without the latter they count as average in it. What the model does not use is not looked at.
        """
        rows = len(own[0].values) if own else len(given if given is not None else ())
        told = given if len(self.mean) and given is not None else np.zeros((rows, len(self.mean)))
        found: Floats = _inputs(self.encoder, self.mean, self.scale, own, told, rows) @ self.weights + self.bias
        return found

    def probabilities(self, own: Sequence[Column], given: Floats | None = None) -> Floats:
        """As `logits`, as probabilities of the outcome."""
        found: Floats = expit(self.logits(own, given))
        return found

    def to_tensors(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and JSON-able meta for `write_tensors`; the meta holds levels of categories, so it stays at home."""
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights, "bias": np.array([self.bias])}
        return arrays, {"encoder": self.encoder.to_dict()}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> LinearModel:
        """Read what `to_tensors` made."""
        mean, scale, weights, bias = (arrays[name] for name in ("mean", "scale", "weights", "bias"))
        return cls(TabularEncoder.from_dict(meta["encoder"]), mean, scale, weights, float(bias[0]))


def _standard(given: Floats) -> tuple[Floats, Floats]:
    mean, spread = given.mean(axis=0), given.std(axis=0)
    return mean, np.where(spread > 1e-12 * np.maximum(1.0, np.abs(mean)), spread, 1.0)  # a constant column stays 0


def _inputs(
    encoder: TabularEncoder, mean: Floats, scale: Floats, own: Sequence[Column], given: Floats, rows: int
) -> Floats:
    """Encoded columns, then what was given, standardised, ``(rows, ...)``; 0 where nothing was given."""
    told = np.zeros((rows, given.shape[1]))
    told[: len(given)] = (given - mean) / scale
    return np.concatenate([encoder.transform(own, rows).dense.numpy(), told], axis=1, dtype=np.float64)
