"""Equivariant dropout: of copies of irreps, or of a residual branch of a graph."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor
from torch.nn import functional

from geoeq import kernels
from geoeq.errors import check_rates
from geoeq.graph import Graph
from geoeq.layers.layer import Layer, Rowwise

__all__ = ["EquivariantDropout", "StochasticDepth"]


class EquivariantDropout(Rowwise):
    """Dropout of whole copies of irreps, all components together.

    In training, the remaining copies are divided by the probability of keeping them. In evaluation, nothing changes.

    Args:
        irreps: irreps of the input and the output.
        rate: dropout probability.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the rate is not a probability below 1.
    """

    copy_of_column: Tensor

    def __init__(self, irreps: o3.Irreps | str, rate: float) -> None:
        super().__init__()
        check_rates(self, rate=rate)
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.rate, self.copies = rate, self.irreps_in.num_irreps
        dims = [ir.dim for mul, ir in self.irreps_in for _ in range(mul)]
        columns = [copy for copy, dim in enumerate(dims) for _ in range(dim)]
        self.register_buffer("copy_of_column", torch.tensor(columns, dtype=torch.int64), persistent=False)

    @classmethod
    def example(cls) -> Self:
        return cls("3x0e + 2x1o + 1x2e", rate=0.5).eval()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        mask = functional.dropout(x.new_ones(x.shape[0], self.copies), self.rate)  # [N, copies]
        return x * mask.index_select(1, self.copy_of_column)


class StochasticDepth(Layer):
    """Dropout of all features of a graph, which skips a residual branch.

    In training, the remaining features are divided by the probability of keeping them. In evaluation, nothing changes.

    Args:
        irreps: irreps of the input and the output.
        rate: dropout probability.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the rate is not a probability below 1.

    Source:
        Huang et al., ECCV 2016, arXiv:1603.09382, for each graph instead of each batch.
    """

    def __init__(self, irreps: o3.Irreps | str, rate: float) -> None:
        super().__init__()
        check_rates(self, rate=rate)
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.rate = rate

    @classmethod
    def example(cls) -> Self:
        return cls("3x0e + 2x1o + 1x2e", rate=0.5).eval()

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        mask = functional.dropout(x.new_ones(graph.num_graphs, 1), self.rate)  # [G, 1]
        return x * kernels.gather(mask, graph.batch)
