"""The loss function and the errors in tables."""

from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from geoeq.errors import TensorError
from geoeq.training.evaluation.metrics import errors, metric_unit
from geoeq.training.losses import Loss
from geoeq.training.recipe import LossSettings


def test_loss_does_not_depend_on_the_unit() -> None:
    output, target = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    for name in get_args(get_type_hints(LossSettings)["name"]):
        small = Loss(LossSettings(name), {"gap": 2.0})({"gap": output}, {"gap": target}, torch.ones(5))
        large = Loss(LossSettings(name), {"gap": 2000.0})({"gap": output * 1000}, {"gap": target * 1000}, torch.ones(5))
        torch.testing.assert_close(small, large)


def test_losses_of_targets_are_weighed_and_added() -> None:
    loss = Loss(LossSettings("mse", {"forces": 10.0}), {"energy": 1.0, "forces": 2.0})
    outputs = {"energy": torch.tensor([3.0]), "forces": torch.full((2, 3), 4.0)}
    targets = {"energy": torch.tensor([1.0]), "forces": torch.zeros(2, 3)}
    assert float(loss(outputs, targets, torch.tensor([2]))) == pytest.approx(4.0 + 10.0 * 4.0)


def test_the_length_of_an_error_does_not_turn() -> None:
    error = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    loss = Loss(LossSettings("length"), {"forces": 2.0})
    turned, straight = (
        loss({"forces": rows}, {"forces": torch.zeros_like(rows)}, torch.tensor([2])) for rows in (error @ turn, error)
    )
    assert straight.item() == pytest.approx(5 / 2 / 2)
    torch.testing.assert_close(turned, straight)
    (slope,) = torch.autograd.grad(straight, error)
    torch.testing.assert_close(slope, torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]], dtype=torch.float64) / 4)
    energy = {"energy": torch.tensor([3.0, -1.0])}
    zero = {"energy": torch.zeros(2)}
    assert float(Loss(LossSettings("length"), {"energy": 1.0})(energy, zero, torch.ones(2))) == pytest.approx(2.0)


def test_shapes_are_never_broadcast() -> None:
    with pytest.raises(TensorError, match="'gap' of shape"):
        Loss(LossSettings(), {"gap": 1.0})({"gap": torch.zeros(4, 1)}, {"gap": torch.zeros(4)}, torch.ones(4))


def test_errors_are_means_over_components() -> None:
    found = errors(np.array([[1.0, -1.0], [3.0, 0.0]]), np.zeros((2, 2)))
    assert found["MAE"] == pytest.approx(5 / 4)
    assert found["MSE"] == pytest.approx(11 / 4)
    assert found["RMSE"] == pytest.approx((11 / 4) ** 0.5)


def test_units_of_squares() -> None:
    assert metric_unit("MAE", "kcal/mol") == "kcal/mol"
    assert metric_unit("MSE", "eV") == "eV^2"
    assert metric_unit("MSE", "eV/Å") == "(eV/Å)^2"
    assert metric_unit("MSE", "1") == ""
