"""The example layer of docs/add.md; tests/test_docs.py runs it."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.graph import Graph
from geoeq.layers import GaussianBasis
from geoeq.layers.layer import Layer


class DistanceSum(Layer):
    """Sum over neighbours, weighted by a learned function of the distance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = o3.Irreps(f"{width}x0e")
        self.basis = GaussianBasis.example()
        self.weight = nn.Linear(self.basis.width, width)

    @classmethod
    def example(cls) -> Self:
        return cls(width=8)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        weight = self.weight(self.basis(graph.lengths))  # [E, C]
        messages = kernels.gather(x, graph.sender) * weight  # [E, C]
        return x + torch.tanh(kernels.segment_sum(messages, graph))
