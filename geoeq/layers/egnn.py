"""E(n)-equivariant graph neural network layer."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, check_name, check_positive, check_sizes
from geoeq.geometry.neighbors import edge_lengths as safe_norm
from geoeq.graph import Graph
from geoeq.layers.chunked import chunked
from geoeq.layers.layer import EdgeLinear, Layer, check_width, edge_attributes
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["Count", "EGNNLayer", "Normalize"]

#: Size in bytes of an [E, C] tensor above which a frozen layer computes its messages in chunks of CHUNK edges.
LARGE, CHUNK = 2**24, 4096

Normalize = Literal["none", "length", "length_plus_one"]
Count = Literal["smooth", "clamped"]


class EGNNLayer(Layer):
    """Update node features and positions by one round of E(n)-equivariant messages.

    The vector channel is the displacement of each node from its input position, so the layer maps features to features
    and periodic images need no special care. With ``d_ij = x_i - x_j`` and ``a_ij`` the edge attributes::

        m_ij = φ_e(h_i, h_j, |d_ij|², a_ij)                      eq. 3
        x_i <- x_i + mean_j d_ij φ_x(m_ij) [+ φ_v(h_i) v_i]      eqs. 4, 7
        h_i <- h_i + φ_h(h_i, Σ_j m_ij)                          eqs. 5, 6

    Args:
        width: number C of scalar channels.
        edge_width: number A of edge attributes in ``graph.edge_attr``.
        velocity: carry a velocity as a second vector, and move along it (eq. 7).
        attention: weight each message by a learned number between 0 and 1 (eq. 8).
        normalize: "length" divides ``d_ij`` by its length in eq. 4, "length_plus_one" by its length plus one.
        tanh: bound φ_x to (-1, 1).
        residual: add the input in eq. 6.
        update_positions: whether to apply eq. 4; False keeps the vector channel as it is.
        cutoff: radius in Å at which messages vanish smoothly. None: messages as published.
        detach_norm: treat the length in "length" as a constant under differentiation, as the published code does; the
            derivatives are then not those of the computed function.
        clamp: bound on each component of ``d_ij φ_x(m_ij)``, as in the published N-body code (100). The layer is not
            equivariant where the bound acts. None: no bound.
        count: number n of neighbours in eq. 4 with a cutoff, where it is the sum of the envelope. "smooth":
            ``(1 + n⁴)^(1/4)``, which is 1 for no neighbours and n for many. "clamped": ``max(n, 1)``, with a kink at
            n = 1 where forces jump, as in geoeq before version 2 of its checkpoints.

    Shapes:
        x: [N, C + 3], irreps ``Cx0e + 1x1o``, displacement in Å; with velocity [N, C + 6], ``Cx0e + 2x1o``,
        displacement and velocity. Returns the same; the velocity is passed on unchanged.

    Raises:
        InputError: ``normalize`` or ``count`` is not one of the values above, or a number is out of range.
        TensorError: x or the edge attributes of the graph have the wrong width.

    Source:
        Satorras et al., ICML 2021, arXiv:2102.09844, eqs. 3-8. Differs: eq. 4 divides by the number of
        neighbours (as the authors' code does), not by the number of nodes less one; "length" has exact
        derivatives unless ``detach_norm``; with a cutoff, eq. 4 divides by the smooth ``count``.
    """

    def __init__(
        self,
        width: int,
        edge_width: int = 0,
        velocity: bool = False,
        attention: bool = False,
        normalize: Normalize = "none",
        tanh: bool = False,
        residual: bool = True,
        update_positions: bool = True,
        cutoff: float | None = None,
        detach_norm: bool = False,
        clamp: float | None = None,
        count: Count = "smooth",
    ) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_sizes(self, least=0, edge_width=edge_width)
        check_positive(self, cutoff=cutoff, clamp=clamp)
        if normalize not in ("none", "length", "length_plus_one"):
            raise InputError(f"normalize must be 'none', 'length' or 'length_plus_one', not {normalize!r}.")
        check_name("count", count, get_args(Count))
        self.width, self.edge_width = width, edge_width
        self.normalize, self.detach_norm, self.clamp, self.count = normalize, detach_norm, clamp, count
        self.velocity, self.residual, self.update_positions = velocity, residual, update_positions
        self.irreps_in = self.irreps_out = o3.Irreps(f"{width}x0e + {2 if velocity else 1}x1o")
        self.dim = self.irreps_in.dim  # torch.compile cannot read Irreps
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)

        self.edge = EdgeLinear(width, 1 + edge_width, width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.gate = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid()) if attention else None
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.pull = self._pull_network(tanh) if update_positions else None
        self.drift = None
        if velocity and update_positions:
            self.drift = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def _pull_network(self, tanh: bool) -> nn.Sequential:
        last = nn.Linear(self.width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=0.001)  # positions hardly move at initialization
        bound = [nn.Tanh()] if tanh else []
        return nn.Sequential(nn.Linear(self.width, self.width), nn.SiLU(), last, *bound)

    @classmethod
    def example(cls) -> Self:
        layer = cls(width=8, velocity=True, attention=True, normalize="length_plus_one", cutoff=4.0)
        for parameter in layer.parameters():  # large enough for tests to see every term
            nn.init.normal_(parameter, std=0.5)
        return layer

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.dim, "EGNNLayer")
        scalars, vectors = x[:, : self.width], x[:, self.width :]  # [N, C], [N, 3 or 6]
        shift, velocity = vectors[:, :3], vectors[:, 3:]

        envelope = None if self.envelope is None else self.envelope(graph.lengths)  # [E, 1]
        m, pull = self._sum_messages(scalars, shift, envelope, graph)  # eqs. 3, 5: [N, C]; sum of eq. 4: [N, 3]

        if pull is not None:
            shift = shift + pull / self._num_neighbors(envelope, graph)  # eq. 4
            if self.drift is not None:
                shift = shift + self.drift(scalars) * velocity  # eq. 7
        update = self.update(torch.cat([scalars, m], dim=-1))  # eq. 6
        scalars = scalars + update if self.residual else update
        return torch.cat([scalars, shift, velocity], dim=-1)

    def _messages(
        self, vectors: Tensor, attributes: Tensor, from_i: Tensor, from_j: Tensor, shift_i: Tensor, shift_j: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Compute ``m_ij`` [E, C] and ``d_ij φ_x(m_ij)`` [E, 3] of each edge.

        Args:
            vectors: [E, 3] vector of the edge. attributes: [E, A].
            from_i, from_j: [E, C] ``edge.project_nodes`` of the receiver and of the sender.
            shift_i, shift_j: [E, 3] displacements of the receiver and of the sender.
        """
        offset = shift_i - shift_j - vectors  # [E, 3] x_i - x_j
        square = offset.square().sum(-1, keepdim=True)  # [E, 1]
        m = self.message(self.edge.add_edges(from_i, from_j, torch.cat([square, attributes], dim=-1)))  # eq. 3
        if self.gate is not None:
            m = m * self.gate(m)  # eq. 8
        if self.pull is None:
            return m, None
        pull = self._direction(offset) * self.pull(m)  # term of eq. 4
        return m, pull if self.clamp is None else pull.clamp(-self.clamp, self.clamp)

    def _direction(self, offset: Tensor) -> Tensor:
        if self.normalize == "none":
            return offset
        length = safe_norm(offset).unsqueeze(-1)  # [E, 1]
        if self.normalize == "length_plus_one":
            return offset / (length + 1)
        return offset / ((length.detach() if self.detach_norm else length) + 1e-8)

    def _num_neighbors(self, envelope: Tensor | None, graph: Graph) -> Tensor:
        """Return the number of neighbours, weighted by the envelope and at least 1, [N, 1]."""
        if envelope is None:
            return graph.degree.unsqueeze(-1).clamp(min=1)
        count = kernels.segment_sum(envelope, graph)
        return count.clamp(min=1) if self.count == "clamped" else (1 + count.pow(4)).pow(0.25)

    def _sum_messages(
        self, scalars: Tensor, shift: Tensor, envelope: Tensor | None, graph: Graph
    ) -> tuple[Tensor, Tensor | None]:
        """Sum ``_messages`` over the edges into each node: [N, C] and [N, 3]."""
        ends = graph.receiver, graph.sender
        tables = list(zip((*self.edge.project_nodes(scalars), shift, shift), ends * 2, strict=True))
        attributes = edge_attributes(graph, self.edge_width, "EGNNLayer") if self.edge_width else graph.vectors[:, :0]
        if self._use_chunks(graph):
            weights = graph.vectors.new_ones(len(graph.vectors), 1) if envelope is None else envelope
            rows, target = [weights, graph.vectors, attributes], (graph.receiver, graph.num_nodes)
            sums = chunked(self._weighted_messages, rows, (), CHUNK, target, tables)  # [N, C + 3]
            return sums[:, : self.width], None if self.pull is None else sums[:, self.width :]

        m, pull = self._messages(graph.vectors, attributes, *(kernels.gather(*table) for table in tables))

        def total(values: Tensor) -> Tensor:
            values = values.to(scalars.dtype)
            if envelope is None:
                return kernels.segment_sum(values, graph)
            return kernels.weighted_sum(values, envelope, graph)

        return total(m), None if pull is None else total(pull)

    def _use_chunks(self, graph: Graph) -> bool:
        """Return whether to compute messages in chunks, and again in the backward pass.

        On the CPU, writing and reading large arrays takes longer than computing the messages twice, unless the
        parameters need gradients too.
        """
        if torch.compiler.is_compiling() or graph.vectors.device.type != "cpu":
            return False
        if len(graph.vectors) * self.width * graph.vectors.element_size() <= LARGE:
            return False
        return not torch.is_grad_enabled() or not any(parameter.requires_grad for parameter in self.parameters())

    def _weighted_messages(self, weights: Tensor, vectors: Tensor, attributes: Tensor, *ends: Tensor) -> Tensor:
        """Return both ``_messages`` side by side, [E, C + 3], times the weights [E, 1]."""
        m, pull = self._messages(vectors, attributes, *ends)
        both = m if pull is None else torch.cat([m, pull], dim=-1)
        return both.to(weights.dtype) * weights
