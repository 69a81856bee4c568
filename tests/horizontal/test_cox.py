"""Cox's partial likelihood against sums worked out by hand, and against lifelines."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.horizontal.cox import cox_loss

SCORES = [0.5, -1.0, 0.2, 0.0, 1.5]


def loss(scores: list[float], duration: list[float], event: list[int]) -> float:
    return cox_loss(*(torch.tensor(values, dtype=torch.float64) for values in (scores, duration, event))).item()


def by_definition(scores: list[float], duration: list[float], event: list[int]) -> float:
    """Efron's likelihood, written out time by time."""
    total = 0.0
    for time in {moment for moment, one in zip(duration, event, strict=True) if one}:
        at_risk = sum(math.exp(s) for s, moment in zip(scores, duration, strict=True) if moment >= time)
        tied = [s for s, moment, one in zip(scores, duration, event, strict=True) if one and moment == time]
        dying = sum(map(math.exp, tied))
        for place, score in enumerate(tied):
            total += score - math.log(at_risk - place / len(tied) * dying)
    return -total / len(scores)


def test_three_patients_without_ties_worked_out_by_hand():
    # at time 1 all three are at risk and the first dies; at time 2 the second is censored; at time 3 one is left
    expected = -(0.5 - math.log(math.exp(0.5) + math.exp(-1.0) + math.exp(0.2))) / 3
    assert loss([0.5, -1.0, 0.2], [1, 2, 3], [1, 0, 1]) == pytest.approx(expected, abs=1e-12)


def test_two_tied_events_share_the_risk_set_as_efron_says():
    everyone, dying = sum(map(math.exp, SCORES[:3])), math.exp(0.5) + math.exp(-1.0)
    expected = -(0.5 - math.log(everyone) + -1.0 - math.log(everyone - dying / 2)) / 3
    assert loss(SCORES[:3], [1, 1, 2], [1, 1, 0]) == pytest.approx(expected, abs=1e-12)


def test_who_is_censored_when_others_die_is_still_at_risk_then():
    everyone = sum(map(math.exp, SCORES[:2]))
    assert loss(SCORES[:2], [4, 4], [1, 0]) == pytest.approx(-(0.5 - math.log(everyone)) / 2, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.integers(1, 4), st.integers(0, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_any_rows_give_the_likelihood_by_its_definition(rows: list[tuple[float, int, int]]):
    scores, duration, event = (list(column) for column in zip(*rows, strict=True))
    assert loss(scores, duration, event) == pytest.approx(by_definition(scores, duration, event), abs=1e-9)


def test_a_batch_without_events_has_no_loss_and_a_gradient_of_zero():
    scores = torch.tensor(SCORES, requires_grad=True)
    found = cox_loss(scores, torch.arange(1.0, 6.0), torch.zeros(5))
    found.backward()
    assert found.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0.0] * 5


def test_a_constant_added_to_all_scores_changes_nothing():
    shifted = [score + 3.0 for score in SCORES]
    duration, event = [2, 1, 2, 3, 1], [1, 1, 1, 0, 1]
    assert loss(shifted, duration, event) == pytest.approx(loss(SCORES, duration, event), abs=1e-12)


def test_scores_far_apart_overflow_nothing():
    scores = torch.tensor([200.0, -200.0, 0.0, 150.0], requires_grad=True)
    found = cox_loss(scores, torch.tensor([1.0, 1.0, 2.0, 3.0]), torch.ones(4))
    found.backward()
    assert math.isfinite(found.item())
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(9, generator=generator, dtype=torch.float64, requires_grad=True)
    duration = torch.tensor([1, 1, 2, 2, 2, 3, 4, 4, 5], dtype=torch.float64)
    event = torch.tensor([1, 1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: cox_loss(values, duration, event), scores)


def test_training_on_all_rows_reaches_the_coefficients_of_lifelines():
    from lifelines import CoxPHFitter

    generator = np.random.default_rng(5)
    features = generator.normal(size=(120, 3)).astype(np.float32)
    hazard = features @ np.array([0.8, -0.5, 0.0])
    time = np.ceil(8 * generator.exponential(np.exp(-hazard)))  # whole days: many ties
    event = (generator.random(120) < 0.7).astype(np.float32)
    frame = pd.DataFrame(features, columns=["a", "b", "c"]).assign(time=time, event=event)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines over this pandas
        expected = CoxPHFitter().fit(frame, "time", "event").params_.to_numpy()

    weights = torch.zeros(3, requires_grad=True)
    rows, moments, died = (torch.from_numpy(values.astype(np.float32)) for values in (features, time, event))
    optimizer = torch.optim.LBFGS([weights], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = cox_loss(rows @ weights, moments, died)
        found.backward()
        return found

    optimizer.step(closure)
    np.testing.assert_allclose(weights.detach().numpy(), expected, atol=1e-3)
