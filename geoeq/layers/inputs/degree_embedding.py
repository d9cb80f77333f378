"""Edge-degree embedding of Equiformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.layout import irreps_blocks, split_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.layer import Layer, edge_attributes
from geoeq.layers.products.tensor_paths import depthwise_paths, harmonics_group
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.radial.radial_network import RadialNetwork

__all__ = ["DegreeEmbedding"]


class DegreeEmbedding(Layer):
    """Add an embedding of the number, lengths and directions of a node's edges to its features.

    ``x_i + (1 / sqrt(n)) Σ_j (W (w(r_ij) Y(r_ij)) + b)``, with w a network of the distance.

    Args:
        irreps: irreps of the input and the output.
        irreps_harmonics: irreps of the harmonics.
        edge_width: number K of edge attributes in ``graph.edge_attr``, such as a radial basis.
        radial_hidden: hidden widths of the network of the distance.
        average_degree: n, the mean number of neighbours in the training set.
        cutoff: radius in Å at which edges vanish smoothly. None: as published.

    Shapes:
        x: [N, irreps.dim]; ``graph.edge_attr``: [E, K]. Returns [N, irreps.dim].

    Raises:
        InputError: a number is out of range.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.4 ("edge-degree embedding"). Differs: the published
        constant factor of each channel before w is part of w.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        irreps_harmonics: o3.Irreps | str,
        edge_width: int,
        radial_hidden: Sequence[int] = (64, 64),
        average_degree: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, edge_width=edge_width, radial_hidden=radial_hidden)
        check_positive(self, average_degree=average_degree, cutoff=cutoff)
        self.irreps_in = self.irreps_out = irreps = o3.Irreps(irreps)
        harmonics, self.width = o3.Irreps(irreps_harmonics), irreps.count("0e")
        self.group, self.edge_width, self.scale = harmonics_group(harmonics), edge_width, average_degree**-0.5
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        reached = [ir for _, ir in harmonics if ir in irreps]
        scalars = o3.Irreps([(self.width, "0e")])
        self.paths, products = depthwise_paths(scalars, harmonics, reached)
        self.blocks, self.product_blocks = irreps_blocks(irreps), irreps_blocks(products)
        self.targets = tuple(n for n, (_, ir) in enumerate(irreps) if ir in reached)
        self.radial = RadialNetwork(edge_width, radial_hidden, self.paths.weight_numel)
        self.linear = Linear(products, o3.Irreps([irreps[n] for n in self.targets]), bias=False)
        self.bias = nn.Parameter(torch.zeros(self.width))
        self.scalar_block = [ir for _, ir in irreps].index(o3.Irrep("0e"))

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x0o + 3x1o + 2x1e + 1x2e", "0e + 1o + 2e", 4, [4], 3.0, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        weights = self.radial(edge_attributes(graph, self.edge_width, "DegreeEmbedding"))  # [E, W]
        degree = graph.degree.unsqueeze(-1)
        if self.envelope is not None:
            envelope = self.envelope(graph.lengths)
            weights, degree = weights * envelope, kernels.segment_sum(envelope, graph)
        ones = x.new_ones(x.shape[0], self.width)
        sums = kernels.tensor_product_conv(ones, graph.harmonics, weights, graph, self.paths)

        blocks = to_channels_last(x, self.blocks)
        values = self.linear.on_blocks(split_blocks(sums, self.product_blocks))
        for n, value in zip(self.targets, values, strict=True):
            blocks[n] = blocks[n] + self.scale * value
        blocks[self.scalar_block] = blocks[self.scalar_block] + (self.scale * degree * self.bias).unsqueeze(1)
        return to_e3nn_layout(blocks)
