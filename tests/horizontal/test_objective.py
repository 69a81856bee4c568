from __future__ import annotations

import numpy as np
import torch
from torch import nn

from isthmus.horizontal.objective import add_correction, add_proximal, control_change


def parameter(*values: float, gradient: tuple[float, ...] | None) -> nn.Parameter:
    found = nn.Parameter(torch.tensor(values))
    found.grad = None if gradient is None else torch.tensor(gradient)
    return found


def test_the_proximal_gradient_by_hand() -> None:
    one = parameter(3.0, -1.0, gradient=(1.0, 0.0))
    add_proximal([one], [torch.tensor([1.0, 1.0])], 0.5)
    assert one.grad is not None and one.grad.tolist() == [2.0, -1.0]


def test_the_correction_is_added_to_the_gradient() -> None:
    one = parameter(3.0, gradient=(1.0,))
    add_correction([one], [torch.tensor([-0.25])])
    assert one.grad is not None and one.grad.tolist() == [0.75]


def test_a_parameter_that_had_no_part_in_the_loss_gets_no_gradient() -> None:
    one = parameter(3.0, gradient=None)
    add_proximal([one], [torch.tensor([1.0])], 0.5)
    add_correction([one], [torch.tensor([1.0])])
    assert one.grad is None


def test_the_control_changes_by_option_two() -> None:
    # (1 - 0.4) / (3 · 0.1) - 0.5
    found = control_change(np.array([1.0], "f4"), np.array([0.4], "f4"), np.array([0.5], "f4"), 3, 0.1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1.5], rtol=1e-6)
