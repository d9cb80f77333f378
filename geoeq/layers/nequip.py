"""The layer of NequIP: a tensor product convolution, a self-connection and a gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor

from geoeq import kernels
from geoeq.errors import InputError, TensorError, check_name, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.element_linear import ElementLinear
from geoeq.layers.irreps.gate import Gate
from geoeq.layers.irreps.layout import flatten_blocks, irreps_blocks, split_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.layer import Group, Layer, check_width, edge_attributes
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.layers.radial.radial_network import PlainRadialNetwork

__all__ = ["NequIPLayer", "SelfConnection", "features_of_group"]

SelfConnection = Literal["linear", "element", "none"]


class NequIPLayer(Layer):
    """Messages that are products of features and harmonics, weighted by a network of the distance; then a gate.

    ::

        m_i = Σ_j (V x_j) ⊗ Y(r_ij), weights R(a_ij), / sqrt(neighbors)
        x_i <- gate(W m_i + U x_i)

    V, W and U mix the channels of each irrep. The gate applies SiLU to scalars and tanh to pseudoscalars, and
    multiplies each other channel by SiLU of an extra scalar.

    Args:
        irreps_in: irreps of the features. For "SE(3)" only their degrees count.
        irreps_out: irreps of the result; those that no product reaches are left out.
        edge_width: number A of edge attributes in ``graph.edge_attr``, such as a radial basis times an envelope:
            messages vanish where they do.
        hidden: widths of the hidden layers of R.
        lmax_edge: highest degree of the harmonics.
        self_connection: U: "linear", "element" (its own matrices for each element: the published tensor product
            with the one-hot vector or embedding of the element), or "none".
        element_width: channels of the embedding of elements, for "element".
        group: "SE(3)" includes all products whatever the parity, such as the cross product.
        neighbors: typical number of neighbours of a node.
        bias: whether V and W have biases for scalars.
        residual: whether to add x to the result, if their irreps are equal.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim], scalars first.

    Raises:
        InputError: an option is unknown, a number is out of range, or no product reaches any of irreps_out.
        TensorError: x or the edge attributes of the graph have the wrong width, or the graph lacks harmonics, or the
            atomic numbers for "element".

    Source:
        Batzner et al. 2022, arXiv:2101.03164, Methods and Fig. 1; SiLU gates as in its code. Differs: weights include
        the normalization factors that the published code applies in the forward pass; each layer has its own embedding
        of elements.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        edge_width: int = 8,
        hidden: Sequence[int] = (64, 64),
        lmax_edge: int = 2,
        self_connection: SelfConnection = "linear",
        element_width: int = 16,
        group: Group = "E(3)",
        neighbors: float = 16.0,
        bias: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(self, edge_width=edge_width, hidden=hidden, element_width=element_width)
        check_sizes(self, least=0, lmax_edge=lmax_edge)
        check_positive(self, neighbors=neighbors)
        check_name("self_connection", self_connection, get_args(SelfConnection))
        check_name("group", group, ("E(3)", "SE(3)"))
        self.group, self.edge_width, self.scale = group, edge_width, 1 / math.sqrt(neighbors)
        self.irreps_in = features_of_group(irreps_in, group)
        harmonics = features_of_group(o3.Irreps.spherical_harmonics(lmax_edge), group)
        products = {ir for _, first in self.irreps_in for _, second in harmonics for ir in first * second}
        reached = o3.Irreps([entry for entry in features_of_group(irreps_out, group) if entry.ir in products])
        if not reached:
            raise InputError(f"NequIPLayer: no product of {self.irreps_in} and {harmonics} reaches {irreps_out}.")

        self.gate = Gate(reached, gate="silu", odd="tanh")
        self.irreps_out = self.gate.irreps_out
        self.paths, irreps_product = depthwise_paths(self.irreps_in, harmonics, [ir for _, ir in self.gate.irreps_in])
        self.blocks_in = irreps_blocks(self.irreps_in)
        self.radial = PlainRadialNetwork(edge_width, hidden, self.paths.weight_numel)
        self.before = Linear(self.irreps_in, self.irreps_in, bias)
        self.after = Linear(irreps_product, self.gate.irreps_in, bias)
        kept = [n for n, (_, ir) in enumerate(self.gate.irreps_in) if ir in self.irreps_in]
        irreps_own = o3.Irreps([self.gate.irreps_in[n] for n in kept])
        self.own_blocks = kept if self_connection != "none" else []
        self.own = self.own_of_element = None
        if self.own_blocks and self_connection == "linear":
            self.own = Linear(self.irreps_in, irreps_own, bias=False)
        elif self.own_blocks:
            self.own_of_element = ElementLinear(self.irreps_in, irreps_own, element_width)
        self.residual = residual and self.irreps_in == self.irreps_out

    @classmethod
    def example(cls) -> Self:
        irreps = "4x0e + 2x0o + 3x1o + 2x1e + 2x2e"
        return cls(irreps, irreps, edge_width=4, hidden=(8,), self_connection="element", neighbors=4.0, residual=True)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.paths.x_dim, "NequIPLayer")
        blocks = to_channels_last(x, self.blocks_in)
        m = self._sum_messages(self.before.on_blocks(blocks), graph)
        features = self.after.on_blocks(m)
        for n, own in zip(self.own_blocks, self._self_connection(blocks, graph), strict=True):
            features[n] = features[n] + own
        y = to_e3nn_layout(self.gate.on_blocks(features))
        return x + y if self.residual else y

    def _sum_messages(self, blocks: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        """Compute ``Σ_j (V x_j) ⊗ Y(r_ij) / sqrt(neighbors)``, weighted by the network of the distance."""
        hidden, matrix = self.radial.factors(edge_attributes(graph, self.edge_width, "NequIPLayer"))
        rows = flatten_blocks(blocks)
        with torch.autocast(rows.device.type, enabled=False):  # long sums need full precision
            dtype = graph.lengths.dtype
            factors = rows.to(dtype), graph.harmonics, hidden.to(dtype), matrix.to(dtype) * self.scale
            sums = kernels.radial_tensor_product_conv(*factors, graph, self.paths)
        return split_blocks(sums, self.paths.out_blocks)

    def _self_connection(self, blocks: Sequence[Tensor], graph: Graph) -> list[Tensor]:
        if self.own is not None:
            return self.own.on_blocks(blocks)
        if self.own_of_element is None:
            return []
        if graph.numbers is None:
            raise TensorError("NequIPLayer: the self-connection 'element' needs atomic numbers (data.z).")
        return self.own_of_element.on_blocks(blocks, graph.numbers)


def features_of_group(irreps: o3.Irreps | str, group: Group) -> o3.Irreps:
    """Return irreps with the parity that they have in a network of this group: none, written as even, for "SE(3)"."""
    irreps = o3.Irreps(irreps)
    if group == "E(3)":
        return irreps
    return o3.Irreps([(mul, (ir.l, 1)) for mul, ir in irreps]).simplify()
