"""What a party trains and judges, against torch, scikit-learn and lifelines on the same rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lifelines.utils import concordance_index
from sklearn.metrics import r2_score, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from isthmus.horizontal.codes import NumberCode
from isthmus.horizontal.cox import cox_loss
from isthmus.horizontal.model_spec import ModelSpec
from isthmus.horizontal.models import build
from isthmus.horizontal.problem import SCORING_ROWS, TabularProblem, Validation
from isthmus.horizontal.splits import Parts, split_by_hash
from isthmus.horizontal.tabular import Encoded, TabularEncoder
from isthmus.horizontal.targets import Target, Task
from isthmus.parties.errors import InputError

COLUMNS = 3
ENCODER = TabularEncoder([NumberCode(f"x{number}", 0.0, 1.0, False) for number in range(COLUMNS)], [])


def a_target(task: Task, rows: int, generator: np.random.Generator) -> Target:
    if task == "binary":
        return Target(task, (generator.random(rows) < 0.4).astype(np.float32))
    if task == "regression":
        return Target(task, generator.normal(50, 10, rows).astype(np.float32))
    return Target(
        task,
        np.ceil(generator.exponential(20, rows)).astype(np.float32),
        (generator.random(rows) < 0.6).astype(np.float32),
    )


def a_problem(
    task: Task = "binary",
    rows: int = 60,
    *,
    dropout: float = 0.0,
    validation_share: float = 0.3,
    target: Target | None = None,
) -> TabularProblem:
    generator = np.random.default_rng(3)
    encoded = Encoded(
        torch.from_numpy(generator.normal(size=(rows, COLUMNS)).astype(np.float32)),
        torch.zeros((rows, 0), dtype=torch.int64),
    )
    target = target or a_target(task, rows, generator)
    ids = np.array([str(row) for row in range(rows)], dtype=object)
    parts = split_by_hash(ids, target.stratum(), validation_share, 0.2, 1)
    module = build(ModelSpec(hidden=(5,), dropout=dropout), ENCODER, 1, task, party="north")
    return TabularProblem(module, encoded, target, parts, party="north", private_seed=4)


def outputs_of(problem: TabularProblem, positions: np.ndarray) -> torch.Tensor:
    problem.module.eval()
    with torch.no_grad():
        found: torch.Tensor = problem.module(problem.rows[torch.from_numpy(positions)])
    return found


TASKS: tuple[Task, ...] = ("binary", "regression", "survival")


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_is_that_of_the_training_rows_at_these_positions(task: Task):
    problem = a_problem(task)
    assert problem.train_rows == len(problem.parts.train)
    index = torch.tensor([3, 0, 11, 7, 5])
    chosen = problem.parts.train[index.numpy()]
    outputs, values = outputs_of(problem, chosen), torch.from_numpy(problem.target.values[chosen])
    if problem.target.event is not None:
        expected = cox_loss(outputs, values, torch.from_numpy(problem.target.event[chosen]))
    else:
        expected = (binary_cross_entropy_with_logits if task == "binary" else mse_loss)(outputs, values)
    found = problem.loss(index)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    assert all(value.grad is not None for value in problem.module.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_validation_rows_give_their_mean_loss_and_a_score(task: Task):
    problem = a_problem(task)
    rows = problem.parts.validation
    outputs, target = outputs_of(problem, rows).double().numpy(), problem.target[rows]
    problem.module.train()
    found = problem.validation()
    if task == "binary":
        expected = roc_auc_score(target.values, outputs)
    elif task == "regression":
        expected = r2_score(target.values, outputs)
    else:
        expected = concordance_index(target.values, -outputs, target.event)
    assert (found.rows, found.scored) == (len(rows), len(rows))
    assert found.score == pytest.approx(expected, abs=1e-6)
    values = torch.from_numpy(target.values)
    if task == "regression":
        assert found.loss == pytest.approx(float(np.mean((outputs - target.values) ** 2)), rel=1e-5)
    elif task == "binary":
        loss = binary_cross_entropy_with_logits(torch.from_numpy(outputs).float(), values)
        assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert problem.module.training  # put back


def test_validation_needs_no_dropout_and_draws_nothing():
    problem = a_problem(dropout=0.5)
    problem.module.train()
    problem.reseed(1)
    first = problem.loss(torch.arange(8)).item()
    problem.reseed(1)
    assert problem.validation() == problem.validation()
    assert problem.loss(torch.arange(8)).item() == first


def test_without_validation_rows_everything_is_zero():
    assert a_problem(validation_share=0.0).validation() == Validation(0, 0.0, 0.0, 0)


@pytest.mark.parametrize(
    "target",
    [
        Target("binary", np.zeros(60, np.float32)),
        Target("regression", np.full(60, 2.5, np.float32)),
        Target("survival", np.ones(60, np.float32), np.zeros(60, np.float32)),
    ],
    ids=lambda target: target.task,
)
def test_rows_that_leave_the_score_undefined_count_for_the_loss_alone(target: Target):
    problem = a_problem(target.task, target=target)
    found = problem.validation()
    assert (found.rows, found.score, found.scored) == (len(problem.parts.validation), 0.0, 0)
    assert np.isfinite(found.loss)
    names = {metric.name for metric in problem.metrics(problem.parts.test)}
    assert not names & {"auc", "average_precision", "r2", "c_index"}


def test_a_model_that_has_run_away_is_said_to_have_diverged_in_that_round():
    problem = a_problem()
    problem.reseed(6)
    with torch.no_grad():
        next(problem.module.parameters()).fill_(float("nan"))
    for call in (problem.validation, lambda: problem.scores(problem.parts.test)):
        with pytest.raises(InputError) as caught:
            call()
        assert (caught.value.code, caught.value.facts) == ("train.diverged", {"epoch": 6})


def test_scores_are_probabilities_numbers_or_logs_of_hazard_ratios():
    for task in TASKS:
        problem = a_problem(task)
        outputs = outputs_of(problem, problem.parts.test).double().numpy()
        expected = 1 / (1 + np.exp(-outputs)) if task == "binary" else outputs
        found = problem.scores(problem.parts.test)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_more_rows_than_are_scored_at_a_time_keep_their_order():
    problem = a_problem(rows=2 * SCORING_ROWS + 3)
    everything = np.arange(len(problem.rows))
    np.testing.assert_allclose(
        problem.scores(everything)[-5:], problem.scores(everything[-5:]), rtol=1e-6
    )  # a matrix of other height may be added up in another order
    assert problem.scores(np.zeros(0, np.int64)).shape == (0,)


def test_each_task_has_its_own_metrics():
    names = {task: [m.name for m in a_problem(task).metrics(np.arange(60))] for task in TASKS}
    assert names == {
        "binary": ["auc", "average_precision", "log_loss", "brier", "accuracy", "prevalence"],
        "regression": ["rmse", "mae", "r2"],
        "survival": ["c_index"],
    }


def test_no_rows_have_no_metrics():
    assert a_problem().metrics(np.zeros(0, np.int64)) == []


def test_a_party_with_too_few_rows_is_told_so():
    problem = a_problem()
    nothing = np.zeros(0, np.int64)
    with pytest.raises(InputError) as caught:
        TabularProblem(
            problem.module,
            problem.rows,
            problem.target,
            Parts(np.array([1]), nothing, nothing),
            party="north",
            private_seed=1,
        )
    assert caught.value.code == "data.few_rows"


def test_events_belong_to_survival_alone():
    with pytest.raises(ValueError, match="events"):
        Target("survival", np.ones(2, np.float32))
    with pytest.raises(ValueError, match="events"):
        Target("binary", np.ones(2, np.float32), np.ones(2, np.float32))


def test_strata_are_outcomes_and_events():
    assert Target("binary", np.array([1, 0], np.float32)).stratum().tolist() == [1, 0]
    assert Target("survival", np.ones(2, np.float32), np.array([0, 1], np.float32)).stratum().tolist() == [0, 1]
    assert Target("regression", np.array([3, 4], np.float32)).stratum().tolist() == [0, 0]


def test_a_party_is_told_of_only_with_enough_patients_of_each_outcome():
    few = Target("binary", np.array([1, 1, *[0] * 40], np.float32))
    assert few.may_be_told_of(2) and not few.may_be_told_of(3)
    assert not Target("binary", np.ones(40, np.float32)).may_be_told_of(1)
    assert Target("regression", np.ones(5, np.float32)).may_be_told_of(5)
    times = np.ones(40, np.float32)
    assert not Target("survival", times, np.zeros(40, np.float32)).may_be_told_of(1)
    assert Target("survival", times, np.ones(40, np.float32)).may_be_told_of(40)
