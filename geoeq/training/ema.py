"""The exponential moving average of the weights, which generalises better than the last weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from geoeq.models import Model

__all__ = ["AverageWeights"]


class AverageWeights(nn.Module):
    """A copy of a model whose weights follow those of the model slowly.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random weights at the start are soon forgotten,
    however short the run.

    Args:
        model: what is followed; the copy is never trained.
        decay: of the moving average, below 1.

    Source:
        Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992), for the average; the rising decay as in
        TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: Model, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Follow ``model`` after its step ``step``, counted from 1.

        Buffers are not averaged but copied.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, current = ([_own(parameter.detach()) for parameter in of.parameters()] for of in (self.model, model))
        get_ema_multi_avg_fn(decay)(averages, current, step)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)


def _own(weights: Tensor) -> Tensor:
    """What this process has of weights that are shared out; else all."""
    return weights.to_local() if isinstance(weights, DTensor) else weights
