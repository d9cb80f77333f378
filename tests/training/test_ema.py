"""The exponential moving average of the weights."""

from __future__ import annotations

import torch

from geoeq.models import EGNN
from geoeq.training.module import AverageWeights


def test_average_is_the_weighted_mean_of_the_steps() -> None:
    model = EGNN.example()
    average = AverageWeights(model, decay=0.5)
    weight, averaged = (next(iter(m.parameters())) for m in (model, average.model))
    expected = weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            weight.add_(1.0)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(averaged, expected)
    assert not torch.equal(averaged, weight)


def test_the_model_itself_is_left_alone() -> None:
    model = EGNN.example()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    AverageWeights(model, decay=0.9).update(model, 1)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in model.parameters())
