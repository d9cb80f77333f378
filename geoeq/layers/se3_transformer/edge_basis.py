"""Couplings, order and envelope of the edges of a graph, computed once for all layers."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError
from geoeq.graph import Graph
from geoeq.kernels.operators.path_plan import PathPlan
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.pointers import sorted_by

__all__ = ["EdgeBasis", "coupling_constants"]


@constant
def coupling_constants(plan: PathPlan) -> Tensor:
    """Return the matrix from harmonics to couplings, [(J_max + 1)², plan.basis_dim], in float64."""
    highest = max(pair.degree_in + pair.degree_out for pair in plan.pairs)
    blocks = []
    for pair in plan.pairs:
        low = abs(pair.degree_in - pair.degree_out)
        block = torch.zeros((highest + 1) ** 2, pair.dim, pair.paths, 2 * pair.degree_out + 1, dtype=torch.float64)
        for path in range(pair.paths):
            degree = low + path
            # "integral" harmonics of the direction from sender to receiver, as published.
            scale = (-1) ** degree / math.sqrt(4 * math.pi)
            coupling = o3.wigner_3j(degree, pair.degree_in, pair.degree_out, dtype=torch.float64)
            block[degree**2 : (degree + 1) ** 2, :, path] = scale * coupling
        blocks.append(block.flatten(1))
    return torch.cat(blocks, dim=1)


class EdgeBasis:
    """The couplings of a graph's edges, ``Σ_M Y_JM C^{J k l}``, computed once and shared by the layers of a network.

    Edges are sorted by sender, as ``kernels.path_messages`` requires.

    Args:
        graph: graph with harmonics up to the highest sum of coupled degrees.
        cutoff: cutoff of the envelope in Å; None for no envelope.
        envelope: envelope of the edges, [E, 1] in the order of the graph; replaces that of ``cutoff``.

    Attributes:
        order: [E] edges of the graph, sorted by sender. inverse: [E] the inverse permutation.
        pointers: [N + 1] first edge of each sender.
        envelope: [E, 1] in the order of the graph, or None.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, eq. 8. Differs: derivatives by positions are exact; the
        authors' and NVIDIA's code compute the harmonics without them.
    """

    def __init__(self, graph: Graph, cutoff: float | None = None, envelope: Tensor | None = None) -> None:
        self.graph = graph
        self.order, self.pointers = sorted_by(graph.sender, graph.num_nodes)
        self.inverse = torch.argsort(self.order)
        if envelope is None and cutoff is not None:
            envelope = PolynomialEnvelope(cutoff)(graph.lengths)
        self.envelope = envelope
        self._couplings: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
        self._harmonics = graph.harmonics.index_select(0, self.order)

    def couplings(self, degrees: tuple[tuple[int, ...], tuple[int, ...]], constants: Tensor) -> Tensor:
        """Return B of ``kernels.path_messages``, [E, basis_dim], sorted by sender.

        Args:
            degrees: degrees of the input and of the output; layers of any width share the result.
            constants: ``coupling_constants`` of these degrees.

        Raises:
            InputError: the harmonics of the graph end below the coupled degrees.
        """
        if degrees not in self._couplings:
            if self.graph.harmonics.shape[1] < constants.shape[0]:
                needed = max(degrees[0]) + max(degrees[1])
                raise InputError(f"The graph has harmonics to lmax={self.graph.lmax}; lmax={needed} is needed.")
            harmonics = self._harmonics[:, : constants.shape[0]]
            self._couplings[degrees] = harmonics @ constants.to(harmonics)
        return self._couplings[degrees]

    def inputs(self, distance: bool) -> Tensor:
        """Return the inputs of the radial networks, sorted by sender: ``graph.edge_attr`` and optionally the length."""
        parts = [] if self.graph.edge_attr is None else [self.graph.edge_attr]
        if distance:
            parts.append(self.graph.lengths.unsqueeze(-1))
        return torch.cat(parts, dim=-1).index_select(0, self.order)
