"""A plain transformer layer on the edges of graphs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.geometry.harmonics import harmonics
from geoeq.geometry.neighbors import edge_lengths
from geoeq.graph import Graph
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.layer import Layer, check_width
from geoeq.layers.radial.bases import GaussianBasis
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["TransformerLayer", "with_loops"]


class TransformerLayer(Layer):
    """Pre-norm transformer layer: attention along the edges, then a feed-forward network of each node.

    ::

        x_i <- x_i + W_o Σ_j softmax_j(q_i·k_j / sqrt(D) [+ b(|r_ij|)]) v_j      q, k, v = W Norm(x)
        x_i <- x_i + W_2 SiLU(W_1 Norm(x_i))

    The output has the symmetry of the input. A node attends to itself only where the graph has a loop (``with_loops``).
    Scores exist only for edges: no N x N array is built, and graphs need no padding.

    Args:
        width: number C of channels.
        attention_heads: number H of heads; D = C / H.
        widening: hidden width of the feed-forward network, as a multiple of C.
        num_basis: number of Gaussians of the distance from which each head computes a bias; 0 for no bias.
        cutoff: radius in Å at which an edge leaves the softmax smoothly. None: the plain softmax.
        basis_cutoff: centre of the last Gaussian in Å; by default the cutoff.

    Shapes:
        x: [N, C], irreps ``Cx0e``. Returns the same.

    Raises:
        InputError: C is not a multiple of H, or Gaussians have neither ``basis_cutoff`` nor ``cutoff``, or a number is
            out of range.
        TensorError: x has the wrong width.

    Source:
        Vaswani et al., NeurIPS 2017, arXiv:1706.03762, section 3.2; norms first as in Xiong et al., ICML 2020,
        arXiv:2002.04745. Differs: attention along edges; SiLU; no dropout; with a cutoff, an envelope.
    """

    def __init__(
        self,
        width: int,
        attention_heads: int = 4,
        widening: int = 2,
        num_basis: int = 0,
        cutoff: float | None = None,
        basis_cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, width=width, attention_heads=attention_heads, widening=widening)
        check_sizes(self, least=0, num_basis=num_basis)
        check_positive(self, cutoff=cutoff, basis_cutoff=basis_cutoff)
        if width % attention_heads:
            raise InputError(f"TransformerLayer: {width} channels are not a multiple of {attention_heads} heads.")
        basis_cutoff = cutoff if basis_cutoff is None else basis_cutoff
        if num_basis and basis_cutoff is None:
            raise InputError("A bias from distances without a cutoff needs basis_cutoff: where its Gaussians end.")
        self.width, self.attention_heads = width, attention_heads
        self.irreps_in = self.irreps_out = o3.Irreps([(width, "0e")])
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.basis = GaussianBasis(num_basis, basis_cutoff) if num_basis and basis_cutoff is not None else None
        self.bias = nn.Linear(num_basis, attention_heads, bias=False) if num_basis else None
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, widening * width), nn.SiLU(), nn.Linear(widening * width, width))

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, attention_heads=2, num_basis=4, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.width, "TransformerLayer")
        q, k, v = self.query_key_value(self.attention_norm(x)).to(x.dtype).chunk(3, dim=-1)  # [N, C] each
        envelope = None if self.envelope is None else self.envelope(graph.lengths)  # [E, 1]
        weights = edge_softmax(self._scores(q, k, graph), graph, envelope)  # [E, H]
        x = x + self.out(kernels.weighted_sum(kernels.gather(v, graph.sender), weights, graph))
        result: Tensor = x + self.network(self.network_norm(x))
        return result

    def _scores(self, q: Tensor, k: Tensor, graph: Graph) -> Tensor:
        """Compute ``q_i·k_j / sqrt(D) [+ b(|r_ij|)]``, [E, H]."""
        product = kernels.gather(q, graph.receiver) * kernels.gather(k, graph.sender)  # [E, C]
        per_head = self.width // self.attention_heads
        scores: Tensor = product.unflatten(-1, (self.attention_heads, per_head)).sum(-1) / math.sqrt(per_head)
        if self.bias is not None and self.basis is not None:
            scores = scores + self.bias(self.basis(graph.lengths)).to(scores.dtype)
        return scores


def with_loops(graph: Graph) -> Graph:
    """Return the graph with a self-loop of length zero at each node, after the other edges into the node.

    Edges stay sorted by receiver. Attributes of loops are zero; edge frames are dropped.
    """
    nodes = torch.arange(graph.num_nodes, device=graph.sender.device)
    edges = torch.arange(len(graph.sender), device=graph.sender.device) + graph.receiver  # new index of each edge
    loops = graph.row_pointers[1:] + nodes

    def insert(values: Tensor, of_loops: Tensor) -> Tensor:
        whole = values.new_zeros(len(edges) + len(loops), *values.shape[1:])
        return whole.index_copy(0, edges, values).index_copy(0, loops, of_loops)

    zeros = graph.vectors.new_zeros(len(nodes), 3)
    lengths = edge_lengths(zeros)
    attributes = graph.edge_attr
    if attributes is not None:
        attributes = insert(attributes, attributes.new_zeros(len(nodes), attributes.shape[1]))
    return replace(
        graph,
        sender=insert(graph.sender, nodes),
        receiver=insert(graph.receiver, nodes),
        row_pointers=graph.row_pointers + torch.arange(len(graph.row_pointers), device=nodes.device),
        vectors=insert(graph.vectors, zeros),
        lengths=insert(graph.lengths, lengths),
        harmonics=insert(graph.harmonics, harmonics(zeros, lengths, graph.lmax)),
        degree=graph.degree + 1,
        edge_attr=attributes,
        frames=None,
    )
