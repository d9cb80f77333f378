"""Normalisations over the nodes of a graph."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.graph import Graph
from geoeq.layers.irreps.norms import EquivariantLayerNorm
from geoeq.layers.layer import Layer

__all__ = ["EquivariantGraphNorm"]


class EquivariantGraphNorm(Layer):
    """Each copy of an irrep over its root mean square over the nodes of its graph, scalars (0e) centred before.

    Args:
        irreps: of input and output.
        eps: added to mean squares.
        affine: learn a scale for each copy, and a bias for each scalar.
        shift: learn how much of the mean is taken from a scalar ("graph norm"); without, all of it ("instance norm").

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Source:
        Cai et al., ICML 2021, arXiv:2009.03294; for irreps Brandstetter et al., ICLR 2022, arXiv:2110.02905.
    """

    def __init__(self, irreps: o3.Irreps | str, eps: float = 1e-5, affine: bool = True, shift: bool = True) -> None:
        super().__init__()
        self.norm = EquivariantLayerNorm(irreps, eps, affine)  # for its parts and its scale
        self.irreps_in = self.irreps_out = self.norm.irreps_in
        self.shift = nn.Parameter(torch.ones(self.irreps_in.count("0e"))) if shift else None

    @classmethod
    def example(cls) -> Self:
        norm = cls("4x0e + 2x0o + 3x1o + 2x2e")
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        return norm

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        result, start = [], 0
        for part, scalar in zip(self.norm.split(x), self.norm.scalar, strict=True):  # [N, U, 2 l + 1]
            if scalar:
                mean = self._mean(part, graph)
                if self.shift is not None:
                    mean = mean * self.shift[start : start + part.shape[1]].unsqueeze(-1)
                    start += part.shape[1]
                part = part - mean
            square = self._mean(part.square().mean(-1, keepdim=True), graph)  # [N, U, 1]
            result.append(part * (square + self.norm.eps).rsqrt())
        return self.norm.scaled(result)

    def _mean(self, values: Tensor, graph: Graph) -> Tensor:
        return kernels.gather(kernels.segment_mean(values, graph.batch, graph.num_graphs), graph.batch)
