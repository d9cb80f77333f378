"""Equivariant spherical channel network: its messages in edge frames, and its layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from geoeq import kernels
from geoeq.derivatives import in_transform
from geoeq.errors import check_positive, check_sizes
from geoeq.fields import NUM_ELEMENTS
from geoeq.graph import Graph, edge_frames
from geoeq.layers.edge_frames.so2 import frame_matrix, order_sizes
from geoeq.layers.inputs.embedding import end_numbers
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Group, Layer, check_width, edge_attributes
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.sphere.s2_grid import Normalization, S2Grid
from geoeq.layers.sphere.sphere_activation import GridSiLU

__all__ = ["ESCNEdgeNetwork", "ESCNLayer", "ESCNMessage", "keep_variance"]

#: Edges per chunk.
CHUNK = 1024


def keep_variance(module: nn.Module) -> None:
    """Initialize linear maps so that signals keep their size; the factor 1.2 partly compensates the loss in SiLU."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=1.2 * part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ESCNEdgeNetwork(nn.Module):
    """Invariants of an edge, ``SiLU(W SiLU(V a_ij + s(z_j) + r(z_i)))``, from its attributes and its two elements.

    Args:
        edge_width: number A of edge attributes.
        width_out: number K of invariants.
        elements: whether the elements are inputs, with one embedding for senders and one for receivers.

    Shapes:
        graph.edge_attr: [E, A]. Returns [E, K].

    Raises:
        TensorError: the graph does not have A edge attributes, or lacks the elements.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    def __init__(self, edge_width: int, width_out: int, elements: bool = True) -> None:
        super().__init__()
        self.edge_width = edge_width
        self.attributes = nn.Linear(edge_width, width_out)
        self.sender = nn.Embedding(NUM_ELEMENTS, width_out) if elements else None
        self.receiver = nn.Embedding(NUM_ELEMENTS, width_out) if elements else None
        self.last = nn.Linear(width_out, width_out)
        keep_variance(self)

    def forward(self, graph: Graph) -> Tensor:
        hidden = self.attributes(edge_attributes(graph, self.edge_width, "ESCNLayer"))  # [E, K]
        if self.sender is not None and self.receiver is not None:
            sender, receiver = end_numbers(graph)
            hidden = hidden + kernels.gather(self.sender.weight, sender)
            hidden = hidden + kernels.gather(self.receiver.weight, receiver)
        return silu(self.last(silu(hidden)))


class ESCNMessage(nn.Module):
    """The sum of eSCN's messages over the neighbours.

    In the frame of the edge, for each order m, with gates ``g`` computed from the invariants of the edge::

        h_m = g_m ⊙ (W_m x_j,m | W'_m x_i,m)        complex W for m > 0: real and imaginary parts gated separately
        y_m = V_m h_m                               the sender's and the receiver's parts are summed
        m_i = Σ_j D_ij^-1 SiLU(y)                   SiLU on a grid of the sphere

    More than ``CHUNK`` edges are computed in chunks, and again in the backward pass, so that messages are not stored.

    Args:
        lmax, mmax: highest degree and order.
        channels: number C of channels.
        hidden: number H of hidden channels, for m = 0, and for the real and the imaginary part of each m > 0.
        edge_channels: number K of invariants of an edge.
        edge_width, elements: as for ``ESCNEdgeNetwork``.
        resolution: number of latitudes and longitudes of the grid; None: the smallest, as published.
        normalization: normalization of the values on the grid, as for ``S2Grid``.
        average_degree: divisor of the sum over neighbours; 1 as published.
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        sphere: [N, (lmax + 1)², C]. frame: [E, R, (lmax + 1)²], of ``geoeq.layers.edge_frames.so2.frame_matrix``.
        Returns [N, (lmax + 1)², C].

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden: int,
        edge_channels: int,
        edge_width: int,
        elements: bool = True,
        resolution: int | None = None,
        normalization: Normalization = "component",
        average_degree: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, hidden=hidden, edge_channels=edge_channels, edge_width=edge_width)
        check_positive(self, average_degree=average_degree, cutoff=cutoff)
        self.lmax, self.mmax, self.hidden, self.average_degree = lmax, mmax, hidden, average_degree
        sizes = order_sizes(lmax, mmax)
        self.rows = [sizes[0], *(size for size in sizes[1:] for _ in range(2))]
        self.edge = ESCNEdgeNetwork(edge_width, edge_channels, elements)
        # h has one row for m = 0 and two for m > 0, the sender's and the receiver's part side by side.
        self.ranks = [2 * hidden] + [4 * hidden] * mmax
        self.gates = nn.Linear(edge_channels, sum(self.ranks))
        self.sender, self.receiver, self.last = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for size, rank in zip(sizes, self.ranks, strict=True):
            self.sender.append(nn.Linear(size * channels, rank // 2, bias=False))
            self.receiver.append(nn.Linear(size * channels, rank // 2, bias=False))
            self.last.append(nn.Linear(rank, size * channels, bias=False))
        keep_variance(self)
        nn.init.ones_(self.gates.bias)  # gates are open at initialization
        self.activation = GridSiLU(lmax, mmax, resolution, normalization, rescale=False, by_order=True)
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)

    def forward(self, sphere: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        inputs = [self.edge(graph), frame, graph.sender, graph.receiver]
        if self.envelope is not None:
            inputs.append(self.envelope(graph.lengths))
        return kernels.segment_sum(self._messages(sphere, *inputs), graph) / self.average_degree

    def _edge_messages(
        self, sphere: Tensor, edge: Tensor, frame: Tensor, j: Tensor, i: Tensor, envelope: Tensor | None = None
    ) -> Tensor:
        """Compute ``D^-1 SiLU(y)`` [E, (L + 1)², C] from invariants, frames, senders j and receivers i of edges."""
        x_j = torch.bmm(frame, kernels.gather(sphere, j)).split(self.rows, dim=1)
        x_i = torch.bmm(frame, kernels.gather(sphere, i)).split(self.rows, dim=1)
        gates = silu(self.gates(edge)).split(self.ranks, dim=-1)

        # Rows m = 0, +1, -1, +2, ... are split, because the gradient of each slice would fill a whole tensor.
        ends, parts = zip(x_j, x_i, strict=True), []
        for m in range(self.mmax + 1):
            pair = [self._hidden(m, *next(ends)) for _ in range(1 + (m > 0))]
            parts += self._gate_and_project(m, pair, gates[m])
        y = torch.cat(parts, dim=-1).unflatten(-1, (-1, sphere.shape[-1]))  # [E, R, C]

        y = self.activation(y, y[:, 0, :0])
        return torch.bmm(frame.transpose(1, 2), y if envelope is None else y * envelope.unsqueeze(-1))

    def _hidden(self, m: int, x_j: Tensor, x_i: Tensor) -> Tensor:
        """Return [E, 2 or 4 parts, H]: real parts of sender and receiver, then for m > 0 their imaginary parts."""
        parts = [self.sender[m](x_j.flatten(1)).unflatten(-1, (-1, self.hidden))]
        parts.append(self.receiver[m](x_i.flatten(1)).unflatten(-1, (-1, self.hidden)))
        return torch.stack(parts, dim=2).flatten(1, 2)

    def _gate_and_project(self, m: int, pair: list[Tensor], gates: Tensor) -> list[Tensor]:
        """V (g ⊙ h), a complex product for m > 0: ``y_+ = V_r h_r+ - V_i h_i-`` and ``y_- = V_r h_r- + V_i h_i+``."""
        last, gates = self.last[m], gates.unflatten(-1, (-1, self.hidden))
        if m == 0:
            return [last((pair[0] * gates).flatten(1))]
        real, imaginary = zip(*(h.split(2, dim=1) for h in pair), strict=True)
        real_gate, imaginary_gate = gates.split(2, dim=1)
        plus = torch.cat([real[0] * real_gate, -imaginary[1] * imaginary_gate], dim=1)
        minus = torch.cat([real[1] * real_gate, imaginary[0] * imaginary_gate], dim=1)
        return [last(plus.flatten(1)), last(minus.flatten(1))]

    def _messages(self, sphere: Tensor, *inputs: Tensor) -> Tensor:
        """Compute ``_edge_messages`` of all edges, in checkpointed chunks if they are many."""
        if torch.compiler.is_compiling() or len(inputs[0]) <= CHUNK:
            return self._edge_messages(sphere, *inputs)
        chunks = zip(*(value.split(CHUNK) for value in inputs), strict=True)
        return torch.cat([_recompute(self._edge_messages, sphere, *chunk) for chunk in chunks])


class ESCNLayer(Layer):
    """Messages by SO(2) convolutions in edge frames, then a pointwise network on the sphere.

    ``x_i <- x_i + W_3 SiLU(W_2 SiLU(W_1 (x_i | m_i)))`` at every point of the sphere, with the messages m of
    ``ESCNMessage``. The layer is equivariant up to an error that falls with the resolution of the grids.

    Args:
        lmax, mmax, channels, hidden, edge_channels, elements, average_degree: as for ``ESCNMessage``.
        edge_width: number A of edge attributes in ``graph.edge_attr``.
        resolution: number of latitudes and longitudes of the grids, even; None: the smallest, as published.
        normalization: normalization of the values on the grids, as for ``S2Grid``; "integral" as published.
        residual: whether the input is added.
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Raises:
        InputError: mmax is not between 0 and lmax, or the grid is too small, or a number is out of range.
        TensorError: x or the edge attributes of the graph have the wrong width, or elements are missing.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655. Differs: with a cutoff, an envelope; derivatives
        go through the frames, which the published code detaches; values on the grids are of the size of the
        coefficients, not smaller by ``sqrt(4π)``. W_1 and W_3 are applied to coefficients, which is
        the same in exact arithmetic and has fewer rows.
    """

    group: Group = "SE(3)"

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden: int,
        edge_channels: int,
        edge_width: int,
        elements: bool = True,
        resolution: int | None = None,
        normalization: Normalization = "component",
        average_degree: float = 1.0,
        residual: bool = True,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, hidden=hidden, edge_channels=edge_channels)
        check_sizes(self, edge_width=edge_width, resolution=resolution)
        check_sizes(self, least=0, lmax=lmax)
        check_positive(self, average_degree=average_degree, cutoff=cutoff)
        self.lmax, self.mmax, self.channels = lmax, mmax, channels
        self.edge_width, self.residual = edge_width, residual
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.dim = self.irreps_in.dim  # torch.compile cannot read Irreps
        sizes = lmax, mmax, channels, hidden, edge_channels, edge_width
        self.message = ESCNMessage(*sizes, elements, resolution, normalization, average_degree, cutoff)
        self.grid = S2Grid(lmax, lmax, resolution, normalization, rescale=False)
        self.first = nn.Linear(2 * channels, channels, bias=False)
        self.second = nn.Linear(channels, channels, bias=False)
        self.last = nn.Linear(channels, channels, bias=False)
        for linear in (self.first, self.second, self.last):
            keep_variance(linear)

    @classmethod
    def example(cls) -> Self:
        return cls(2, 1, channels=1, hidden=3, edge_channels=4, edge_width=4, resolution=30, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.dim, "ESCNLayer")
        frame = frame_matrix(edge_frames(graph, self.lmax), self.lmax, self.mmax).to(x.dtype)
        return from_coefficients(self.on_sphere(to_coefficients(x, self.lmax, self.channels), graph, frame), self.lmax)

    def on_sphere(self, sphere: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        """Apply the layer to channels-last features [N, (lmax + 1)², C], with the ``frame_matrix`` of the graph."""
        m = self.message(sphere, graph, frame)
        update = self.first(torch.cat([sphere, m], dim=-1))  # W_1 (x_i | m_i)
        # Values on the grid are many times larger than the coefficients, so they are recomputed, not stored.
        update = self.last(_recompute(self._on_grid, update))  # W_3 SiLU(W_2 SiLU(...))
        result: Tensor = sphere + update if self.residual else update
        return result

    def _on_grid(self, sphere: Tensor) -> Tensor:
        return self.grid.project(silu(self.second(silu(self.grid.sample(sphere)))))


def _recompute(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``, whose intermediate values are recomputed in the backward pass."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or in_transform():
        return function(*inputs)
    result: Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result
