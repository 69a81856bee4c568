from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.optimizer import ServerOptimizer, ServerState, step


def run(optimizer: ServerOptimizer, *changes: list[float]) -> tuple[list[list[float]], ServerState]:
    """The models after each change, from zero."""
    model, state, found = np.zeros(len(changes[0]), np.float32), ServerState(), []
    for change in changes:
        model, state = step(optimizer, model, np.array(change), state)
        found.append(model.tolist())
    return found, state


def test_sgd_with_rate_one_adds_the_mean_change() -> None:
    models, state = run(ServerOptimizer(), [0.5, -1.0], [0.25, 0.0])
    assert models == [[0.5, -1.0], [0.75, -1.0]]
    assert state.count == 2 and not len(state.first)


def test_sgd_with_momentum_by_hand() -> None:
    # m1 = 1, x1 = .5; m2 = .9 + 1 = 1.9, x2 = .5 + .95
    models, _ = run(ServerOptimizer("sgd", learning_rate=0.5, momentum=0.9), [1.0], [1.0])
    np.testing.assert_allclose(models, [[0.5], [1.45]], rtol=1e-6)


def test_fedadam_by_hand() -> None:
    # d = 2: m = .2, v = .001·4 = .004, x = .1·.2/(√.004 + .01) = .02/.0732455532
    # d = -1: m = .9·.2 - .1 = .08, v = .999·.004 + .001 = .004996, x += .1·.08/(√.004996 + .01)
    models, state = run(ServerOptimizer("adam", learning_rate=0.1, tau=0.01), [2.0], [-1.0])
    first = 0.02 / (0.004**0.5 + 0.01)
    np.testing.assert_allclose(models, [[first], [first + 0.008 / (0.004996**0.5 + 0.01)]], rtol=1e-6)
    assert state.first[0] == pytest.approx(0.08) and state.second[0] == pytest.approx(0.004996)


def test_fedyogi_by_hand() -> None:
    # d = 2: v = 0 - .001·4·sign(0 - 4) = .004; d = .05, d² = .0025 < v: v = .004 - .001·.0025
    models, state = run(ServerOptimizer("yogi", learning_rate=0.1, tau=0.01), [2.0], [0.05])
    second = 0.004 - 0.001 * 0.0025
    mean = 0.9 * 0.2 + 0.1 * 0.05
    first = 0.02 / (0.004**0.5 + 0.01)
    np.testing.assert_allclose(models, [[first], [first + 0.1 * mean / (second**0.5 + 0.01)]], rtol=1e-6)
    assert state.second[0] == pytest.approx(second)


def test_fedadagrad_by_hand() -> None:
    # v = 4, then 4 + 1; m = .2, then .08
    models, _ = run(ServerOptimizer("adagrad", learning_rate=0.1, tau=0.01), [2.0], [-1.0])
    np.testing.assert_allclose(models, [[0.02 / 2.01], [0.02 / 2.01 + 0.008 / (5**0.5 + 0.01)]], rtol=1e-6)


def test_with_bias_correction_the_first_step_of_adam_is_the_rate_itself() -> None:
    corrected, _ = run(ServerOptimizer("adam", learning_rate=0.1, bias_correction=True), [2.0, -0.3])
    plain, _ = run(ServerOptimizer("adam", learning_rate=0.1), [2.0, -0.3])
    np.testing.assert_allclose(corrected, [[0.1, -0.1]], rtol=1e-5)
    np.testing.assert_allclose(plain, [[0.1 * 0.1 / 0.001**0.5, -0.1 * 0.1 / 0.001**0.5]], rtol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "yogi", "adagrad"])
def test_where_nothing_changed_nothing_moves(kind: Any) -> None:
    assert run(ServerOptimizer(kind), [0.0], [0.0])[0] == [[0.0], [0.0]]


def test_the_state_goes_through_a_checkpoint() -> None:
    _, state = run(ServerOptimizer("adam"), [1.0, 2.0])
    back = ServerState.load(state.count, state.arrays())
    assert back.count == 1 and back.first.tolist() == state.first.tolist()
    assert back.second.tolist() == state.second.tolist()
